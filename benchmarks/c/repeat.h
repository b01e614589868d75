/* What every gradient written by hand looks like, so that one routine can time them all. */

/* n numbers x -> the value (one, or one for each lane) and the n entries of the gradient. */
typedef void by_hand(long n, const double *x, double *value, double *gradient);

/* Calls through a pointer that the compiler cannot see through: nothing moves out of the loop. */
void repeat(long count, by_hand *f, long n, const double *x, double *value, double *gradient)
{
    by_hand *volatile opaque = f;

    for (long i = 0; i < count; i++)
        opaque(n, x, value, gradient);
}
