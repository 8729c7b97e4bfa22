/* The statistics of many tensors in one pass over each: called through ctypes from capture/native.py.
 *
 * A call gets a table of tensors and fills a row per tensor. What reads floats is in kernel.h, which is compiled here
 * once per instruction set and chosen when the library is first used. Single precision is summed in float lanes inside
 * blocks of 4,096 values and in double across them. A block in which float lanes cannot tell enough - a value is not
 * finite, squares overflow or vanish - is read again in double while it is still in cache, and so is a tensor whose mean
 * drowns its deviation: the result is good for any values. No Python, no memory of its own, no threads.
 */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INTERFACE 2
#define EXPORTED __attribute__((visibility("default")))

/* Values per block. */
enum { BLOCK = 4096 };

/* Types of elements, as capture/native.py numbers them. */
enum { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };

/* The exponents of the values that are not zero, from the smallest denormal on. */
enum { LOWEST_FLOAT = -149, BINS_FLOAT = 277, LOWEST_DOUBLE = -1074, BINS_DOUBLE = 2098 };

/* Float lanes are trusted when a block's sum of squares lies between these: below, squares begin to vanish. */
#define LEAST_SQUARES 1e-27f
#define MOST_SQUARES FLT_MAX
#define LEAST_SQUARES_DOUBLE 1e-280
#define MOST_SQUARES_DOUBLE DBL_MAX

/* Ask for what a loop over two vectors reads a page later: the processor itself does not look across pages, and after a
 * backward pass the values come from far away. A fifth of the time is saved. */
#define FETCH_AHEAD(place, vector)                                                                                     \
    __builtin_prefetch((const char *)(place) + 4096);                                                                  \
    if ((vector) > 32)                                                                                                 \
        __builtin_prefetch((const char *)(place) + 4096 + 64);

/* If the variance is a smaller share of the mean square than this, rounding in float lanes is too much of it. */
#define DROWNED 1e-3

/* A row of the result; capture/native.py reads it as eight doubles. */
typedef struct {
    double count, sum, squares, min, max, zeros, nans, infs;
} Statistics;

typedef struct {
    const void *data;
    int64_t size, type;
} Tensor;

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of_bits(uint32_t bits)
{
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t bits_of_double(double value)
{
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Whether the deviation has to be computed in double. */
static inline int has_drowned(const Statistics *row)
{
    return row->min < row->max && row->squares <= DBL_MAX &&
           row->squares - row->sum * row->sum / row->count < DROWNED * row->squares;
}

/* The exponent of the power of two at or below a value's magnitude; the value is finite and not zero. */
static inline int exponent_of(double value)
{
    uint64_t magnitude = bits_of_double(value) & INT64_MAX;
    int field = (int)(magnitude >> 52);
    return field ? field - 1023 : -1011 - __builtin_clzll(magnitude);
}

/* Squares that vanish are common and would each cost a trap into microcode: let the processor flush them to zero. What
 * the caller set, such as torch.set_flush_denormal, must not change what is counted as zero. */
static inline unsigned int begin_fast(void)
{
#if defined(__x86_64__)
    unsigned int before = _mm_getcsr();
    _mm_setcsr((before & ~0x0040u) | 0x8000u);
    return before;
#else
    return 0;
#endif
}

static inline void end_fast(unsigned int before)
{
#if defined(__x86_64__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

#if defined(__x86_64__)

#define VARIANT(name) name##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define VECTOR 64
#define MIN_FLOAT(a, b) (FloatVector) _mm512_min_ps((__m512)(a), (__m512)(b))
#define MAX_FLOAT(a, b) (FloatVector) _mm512_max_ps((__m512)(a), (__m512)(b))
#define MIN_DOUBLE(a, b) (DoubleVector) _mm512_min_pd((__m512d)(a), (__m512d)(b))
#define MAX_DOUBLE(a, b) (DoubleVector) _mm512_max_pd((__m512d)(a), (__m512d)(b))
#include "kernel.h"

#define VARIANT(name) name##_avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define VECTOR 32
#define MIN_FLOAT(a, b) (FloatVector) _mm256_min_ps((__m256)(a), (__m256)(b))
#define MAX_FLOAT(a, b) (FloatVector) _mm256_max_ps((__m256)(a), (__m256)(b))
#define MIN_DOUBLE(a, b) (DoubleVector) _mm256_min_pd((__m256d)(a), (__m256d)(b))
#define MAX_DOUBLE(a, b) (DoubleVector) _mm256_max_pd((__m256d)(a), (__m256d)(b))
#include "kernel.h"

#define MIN_FLOAT(a, b) (FloatVector) _mm_min_ps((__m128)(a), (__m128)(b))
#define MAX_FLOAT(a, b) (FloatVector) _mm_max_ps((__m128)(a), (__m128)(b))
#define MIN_DOUBLE(a, b) (DoubleVector) _mm_min_pd((__m128d)(a), (__m128d)(b))
#define MAX_DOUBLE(a, b) (DoubleVector) _mm_max_pd((__m128d)(a), (__m128d)(b))

#else /* the compiler's own vectors, on which a comparison gives a mask */

#define CHOSEN(type, integers, chosen, a, b) (type)(((chosen) & (integers)(a)) | (~(chosen) & (integers)(b)))
#define MIN_FLOAT(a, b) CHOSEN(FloatVector, IntVector, (a) < (b), a, b)
#define MAX_FLOAT(a, b) CHOSEN(FloatVector, IntVector, (a) > (b), a, b)
#define MIN_DOUBLE(a, b) CHOSEN(DoubleVector, LongVector, (a) < (b), a, b)
#define MAX_DOUBLE(a, b) CHOSEN(DoubleVector, LongVector, (a) > (b), a, b)

#endif

#define VARIANT(name) name##_plain
#define TARGET
#define VECTOR 16
#include "kernel.h"

typedef struct {
    const char *name;
    void (*statistics)(const Tensor *, int64_t, Statistics *);
    void (*squares)(const Tensor *, int64_t, double *);
    void (*exponents)(const Tensor *, int64_t, uint32_t *, int, int64_t);
} Kernel;

static const Kernel KERNELS[] = {
#if defined(__x86_64__)
    {"AVX-512", statistics_avx512, squares_avx512, exponents_avx512},
    {"AVX2", statistics_avx2, squares_avx2, exponents_avx2},
    {"SSE2", statistics_plain, squares_plain, exponents_plain},
#else
    {"plain vectors", statistics_plain, squares_plain, exponents_plain},
#endif
};

enum { VARIANTS = sizeof KERNELS / sizeof KERNELS[0] };

/* Whether this processor knows the instructions of a kernel. */
static int can_run(int number)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (number == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (number == 1)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return number >= 0 && number < VARIANTS;
}

static int64_t chosen = -1;

static const Kernel *kernel(void)
{
    if (chosen < 0) /* a race of two threads chooses the same twice */
        for (chosen = 0; !can_run((int)chosen); chosen++)
            ;
    return &KERNELS[chosen];
}

/* The number of the interface below, which capture/native.py compares with its own. */
EXPORTED int64_t tracer_interface(void) { return INTERFACE; }

/* The name of the instructions in use. */
EXPORTED const char *tracer_instructions(void) { return kernel()->name; }

/* Use a kernel by its number, which tests and benchmarks do; tells whether there is one that this processor can run. */
EXPORTED int64_t tracer_choose(int64_t number)
{
    if (number >= 0 && number < VARIANTS && can_run((int)number)) {
        chosen = number;
        return 1;
    }
    return 0;
}

/* Fill a row per tensor. */
EXPORTED void tracer_statistics(const Tensor *tensors, int64_t count, Statistics *rows)
{
    kernel()->statistics(tensors, count, rows);
}

/* Fill single floats, a statistic per row (norm, mean, std, max, min, zeros, NaNs, infinities) and a layer per column:
 * tensor number i stands in column places[i]. `figures` is room for a row per tensor; values were multiplied with
 * `scale`. Returns the norm of all of them. This is what would take Python longer than the kernel takes. */
EXPORTED double tracer_layers(const Tensor *tensors, int64_t count, Statistics *figures, const int64_t *places,
                              double scale, float *rows)
{
    double all = 0;
    kernel()->statistics(tensors, count, figures);
    for (int64_t i = 0; i < count; i++) {
        const Statistics *of = &figures[i];
        float *to = rows + places[i];
        double spread = of->squares - of->sum * of->sum / of->count, deviation = NAN;
        int hidden = of->nans >= of->count; /* also where there are no values at all */
        if (of->count > 1 && isfinite(of->squares) && isfinite(of->sum))
            deviation = of->min == of->max || spread <= 0 ? 0 : __builtin_sqrt(spread / (of->count - 1));
        to[0 * count] = (float)(__builtin_sqrt(of->squares) / scale);
        to[1 * count] = (float)(of->sum / of->count / scale);
        to[2 * count] = (float)(deviation / scale);
        to[3 * count] = hidden ? NAN : (float)(of->max / scale);
        to[4 * count] = hidden ? NAN : (float)(of->min / scale);
        to[5 * count] = (float)of->zeros;
        to[6 * count] = (float)of->nans;
        to[7 * count] = (float)of->infs;
        all += of->squares;
    }
    return __builtin_sqrt(all) / scale;
}

/* Fill the sum of squares of each tensor. */
EXPORTED void tracer_squares(const Tensor *tensors, int64_t count, double *sums)
{
    kernel()->squares(tensors, count, sums);
}

/* Add to the counts of exponents: for both signs, negative first, a row of `bins` per tensor, beginning at `lowest`. */
EXPORTED void tracer_exponents(const Tensor *tensors, int64_t count, uint32_t *counts, int64_t lowest, int64_t bins)
{
    kernel()->exponents(tensors, count, counts, (int)lowest, bins);
}
