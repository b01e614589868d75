"""Mechanisms, hybrid systems and plants in the shapes of CasADi's examples."""

import collections

import numpy as np
from worlds import written

unit_length, unit_time = 1.0, 1.0


@written()
def robot_arm():
    lengths = [1.0, 0.5, 0.25]

    def tip(x):
        angle = px = py = 0.0
        for turn, length in zip(x, lengths):
            angle = angle + turn
            px, py = px + length * np.cos(angle), py + length * np.sin(angle)
        return px, py

    yield tip
    for k in range(3):
        yield
        lengths[k] *= 2
    yield


@written()
def quaternion_rotate():
    point = [1.0, 0.0, 0.5]

    def f(u):
        w, x, y, z = u[:4] / np.sqrt(np.sum(u[:4] ** 2))
        a, b, c = point
        return np.stack([(1 - 2 * (y * y + z * z)) * a + 2 * (x * y - w * z) * b + c * x * z,
                         2 * (x * y + w * z) * a + (1 - 2 * (x * x + z * z)) * b - c * w * x])

    yield f
    for k in range(3):
        yield
        point[k] += 1.0
    yield


@written()
def bouncing_ball():
    restitution = 0.8

    def f(r):
        height, speed, bounces = r, 0.0, 0
        for _ in range(12):
            height, speed = height + 0.1 * speed, speed - 1.0
            if height < 0:
                height, speed, bounces = -height, -restitution * speed, bounces + 1
        return height + bounces

    yield f
    for restitution in (0.8, 0.5, 1.0, 0.8):
        yield


@written()
def hybrid_mode():
    mode = "off"

    def f(s):
        nonlocal mode
        if mode == "off":
            mode = "on"
            return s * 0.5
        mode = "off"
        return s * 2.0

    yield f, lambda: mode


@written()
def thermostat():
    class Thermostat:
        heating = False

        def __call__(self, s):
            if s < 0.75:
                self.heating = True
            elif s > 1.0:
                self.heating = False
            return s + (0.5 if self.heating else -0.1 * s)

    thermostat = Thermostat()
    yield thermostat, thermostat


@written()
def battery_aging():
    class Battery:
        capacity = 10.0

        def voltage(self, s):
            self.capacity = self.capacity * 0.99
            return 3.7 - s / self.capacity

    battery = Battery()
    yield battery.voltage, battery


@written()
def tank_levels():
    levels = np.array([1.0, 2.0, 3.0])

    def f(s):
        flow = s * np.sqrt(levels[0])
        levels[1:] += 0.1 * np.diff(levels)
        levels[0] *= 0.9
        return flow + np.sum(levels)

    yield f, levels


@written()
def gear_shift():
    gear, ratios = 1, {1: 3.0, 2: 2.0, 3: 1.0}

    def f(r):
        nonlocal gear
        if r > 1.6 and gear < 3:
            gear += 1
        elif r < 1.1 and gear > 1:
            gear -= 1
        return r * ratios[gear]

    yield f, lambda: gear


@written()
def minimum_time():
    steps = 3

    def f(r):
        h, position, speed = r / steps, 0.0, 0.0
        for k in range(steps):
            push = 1.0 if k < steps / 2 else -1.0
            position, speed = position + h * speed, speed + h * push
        return r + 10 * (position - 1) ** 2

    yield f
    for steps in (3, 4, 6, 3):
        yield


@written()
def soft_constraint():
    weights = {"slack": 10.0}

    def f(x, s):
        slack = np.maximum(np.sum(x) - s, 0.0)
        return np.sum(x ** 2) + weights.get("slack", 0.0) * slack

    yield f
    yield
    weights["slack"] = 100.0
    yield
    weights.pop("slack")
    yield


@written()
def delay_line():
    line = collections.deque([0.0, 0.0], maxlen=2)

    def f(s):
        old = line[0]
        line.append(s)
        return s - 0.5 * old

    yield f, line


@written()
def disturbance_file():
    records, place = [0.1, 0.2, -0.3, 0.4, 0.5, -0.6], {"row": 0}

    def f(s):
        value = records[place["row"]]
        place["row"] = (place["row"] + 1) % len(records)
        return 0.9 * s + value

    yield f, place


@written()
def scaling_factors():
    global unit_length, unit_time

    def f(x):
        position, speed = x[0] * unit_length, x[1] * unit_length / unit_time
        return position + speed * unit_time ** 2 * x[2]

    yield f
    for unit_length, unit_time in ((1.0, 1.0), (10.0, 1.0), (10.0, 60.0), (1.0, 60.0)):
        yield
