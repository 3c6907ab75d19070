/* A Mandelbrot set and a sum of sines by their series: additions, products, quotients and comparisons of doubles. */
#include <stdio.h>

enum { SIDE = 450, DEPTH = 80, TERMS = 12, ANGLES = 100000 };

int main(void)
{
    unsigned inside = 0;
    double sum = 0;

    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++) {
            double cr = 3.0 * x / SIDE - 2.25, ci = 2.5 * y / SIDE - 1.25, r = 0, i = 0;
            int depth = 0;
            while (depth < DEPTH && r * r + i * i < 4) {
                double next = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = next;
                depth++;
            }
            inside += depth;
        }
    }
    for (int n = 0; n < ANGLES; n++) {
        double angle = n * 0.00006, term = angle;
        for (int k = 1; k < TERMS; k++) {
            sum += term;
            term *= -angle * angle / ((2 * k) * (2 * k + 1));
        }
    }
    printf("%u %.9g\n", inside, sum);
    return 0;
}
