/* A graph's row, as the recorder writes it, Python reads it, and the planner plans it: declared here
 * once. Python's dtype is made of FG_GRAPH_LAYOUT (fastgrad/graphs/graph.py).
 */
#ifndef FG_GRAPH_H
#define FG_GRAPH_H

#include <stdint.h>

/* One operation. `a`, `b`, `c` are numbers of rows, or -1; with MANY, `a` is where the operands begin
 * in the graph's list of them and `b` how many there are. `shape`, `attr` and `line` are numbers of
 * the graph's shapes, attributes and lines of code. */
#define FG_GRAPH_ROW(FIELD)                                                                         \
    FIELD(uint16_t, op, "u2") FIELD(uint8_t, dtype, "u1") FIELD(uint8_t, rank, "u1")                \
    FIELD(uint32_t, flags, "u4")                                                                    \
    FIELD(int32_t, a, "i4") FIELD(int32_t, b, "i4") FIELD(int32_t, c, "i4")                         \
    FIELD(uint32_t, shape, "u4") FIELD(uint32_t, attr, "u4") FIELD(uint32_t, line, "u4")            \
    FIELD(double, constant, "f8")

#define FG_FIELD(type, name, format) type name;
typedef struct FgGraphNode { FG_GRAPH_ROW(FG_FIELD) } FgGraphNode;
#undef FG_FIELD

#define FG_FIELD(type, name, format) #name ":" format " "
static const char FG_GRAPH_LAYOUT[] = FG_GRAPH_ROW(FG_FIELD);
#undef FG_FIELD

_Static_assert(sizeof(FgGraphNode) == 40, "without gaps");

enum {
    FG_GRAPH_INPUT   = 1,   /* a leaf that is bound at each run; `constant` is its place among them  */
    FG_GRAPH_WEAK    = 2,   /* a scalar that gives way in promotion: Python's float                  */
    FG_GRAPH_LITERAL = 4,   /* an operand was written as a number: a tie in maximum weighs 0         */
    FG_GRAPH_MANY    = 8,   /* the operands stand in the graph's list                                */
    FG_GRAPH_STOP    = 16   /* no derivative passes: the value was detached                          */
};

/* A basic index as numbers, FG_INDEX_FIELDS for each of its items: kind, start, step, count. */
enum {
    FG_INDEX_INT,           /* an entry of an axis, which goes away                                  */
    FG_INDEX_SLICE,
    FG_INDEX_NEW,           /* a new axis of length 1                                                */
    FG_INDEX_FIELDS = 4
};

/* What a value that decided was asked. */
enum { FG_GUARD_BOOL, FG_GUARD_INT, FG_GUARD_COUNT, FG_GUARD_FINITE };

#endif
