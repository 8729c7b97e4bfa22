/* The kernels for one instruction set; statistics.c includes this once per set and says what it is called there:
 * VARIANT(name), TARGET (an attribute), VECTOR (bytes), and MIN_ and MAX_ of vectors, which give their second argument
 * where the first is NaN. Each loop holds two accumulators of each kind: a sum waits four cycles for itself.
 */
#define FloatVector VARIANT(FloatVector)
#define IntVector VARIANT(IntVector)
#define DoubleVector VARIANT(DoubleVector)
#define LongVector VARIANT(LongVector)

typedef float FloatVector __attribute__((vector_size(VECTOR)));
typedef int32_t IntVector __attribute__((vector_size(VECTOR)));
typedef double DoubleVector __attribute__((vector_size(VECTOR)));
typedef int64_t LongVector __attribute__((vector_size(VECTOR)));

/* Add a block in double: for any values, and slower. */
#define EXACT_VALUE(lane)                                                                                              \
    {                                                                                                                  \
        double value = values[at + (lane)];                                                                            \
        sums[lane] += value;                                                                                           \
        squares[lane] += value * value;                                                                                \
        lows[lane] = value < lows[lane] ? value : lows[lane];                                                          \
        highs[lane] = value > highs[lane] ? value : highs[lane];                                                       \
        zeros[lane] += value == 0 ? 1.0 : 0.0;                                                                         \
        nans[lane] += value != value ? 1.0 : 0.0;                                                                      \
        infs[lane] += __builtin_fabs(value) == INFINITY ? 1.0 : 0.0;                                                   \
    }

#define EXACT_BLOCK(name, type)                                                                                        \
    TARGET static __attribute__((noinline)) void VARIANT(name)(const type *values, int64_t size, Statistics *row)      \
    {                                                                                                                  \
        enum { LANES = 8 };                                                                                            \
        double sums[LANES] = {0}, squares[LANES] = {0}, lows[LANES], highs[LANES];                                     \
        double zeros[LANES] = {0}, nans[LANES] = {0}, infs[LANES] = {0};                                               \
        int64_t at = 0;                                                                                                \
        for (int lane = 0; lane < LANES; lane++)                                                                       \
            lows[lane] = INFINITY, highs[lane] = -INFINITY;                                                            \
        for (; at + LANES <= size; at += LANES)                                                                        \
            for (int lane = 0; lane < LANES; lane++)                                                                   \
                EXACT_VALUE(lane)                                                                                      \
        for (; at < size; at++)                                                                                        \
            EXACT_VALUE(0)                                                                                             \
        for (int lane = 0; lane < LANES; lane++) {                                                                     \
            row->sum += sums[lane];                                                                                    \
            row->squares += squares[lane];                                                                             \
            row->min = lows[lane] < row->min ? lows[lane] : row->min;                                                  \
            row->max = highs[lane] > row->max ? highs[lane] : row->max;                                                \
            row->zeros += zeros[lane];                                                                                 \
            row->nans += nans[lane];                                                                                   \
            row->infs += infs[lane];                                                                                   \
        }                                                                                                              \
    }

EXACT_BLOCK(exact_floats, float)
EXACT_BLOCK(exact_doubles, double)
#undef EXACT_BLOCK
#undef EXACT_VALUE

/* Add a block in lanes of its own type; again in double where that could not tell. */
#define FAST_BLOCK(name, exact, type, Vector, Integers, MIN, MAX, least, most)                                         \
    TARGET static inline void VARIANT(name)(const type *values, int64_t size, Statistics *row)                         \
    {                                                                                                                  \
        enum { LANES = VECTOR / sizeof(type) };                                                                        \
        Vector sum = {0}, other_sum = {0}, square = {0}, other_square = {0}, value, other;                             \
        Vector low = (Vector){0} + (type)INFINITY, other_low = low, high = -low, other_high = high;                    \
        Integers zero = {0}, other_zero = {0};                                                                         \
        int64_t at = 0, zeros = 0;                                                                                     \
        for (; at + 2 * LANES <= size; at += 2 * LANES) {                                                              \
            FETCH_AHEAD(values + at, VECTOR)                                                                           \
            __builtin_memcpy(&value, values + at, VECTOR);                                                             \
            __builtin_memcpy(&other, values + at + LANES, VECTOR);                                                     \
            sum += value;                                                                                              \
            other_sum += other;                                                                                        \
            square += value * value;                                                                                   \
            other_square += other * other;                                                                             \
            low = MIN(value, low);                                                                                     \
            other_low = MIN(other, other_low);                                                                         \
            high = MAX(value, high);                                                                                   \
            other_high = MAX(other, other_high);                                                                       \
            zero -= value == 0;                                                                                        \
            other_zero -= other == 0;                                                                                  \
        }                                                                                                              \
        double total = 0, squares = 0, least_value = INFINITY, most_value = -INFINITY;                                 \
        if (at) {                                                                                                      \
            sum += other_sum;                                                                                          \
            square += other_square;                                                                                    \
            zero += other_zero;                                                                                        \
            low = MIN(low, other_low);                                                                                 \
            high = MAX(high, other_high);                                                                              \
            for (int lane = 0; lane < LANES; lane++) {                                                                 \
                total += sum[lane];                                                                                    \
                squares += square[lane];                                                                               \
                zeros += zero[lane];                                                                                   \
                least_value = low[lane] < least_value ? low[lane] : least_value;                                       \
                most_value = high[lane] > most_value ? high[lane] : most_value;                                        \
            }                                                                                                          \
        }                                                                                                              \
        for (; at < size; at++) {                                                                                      \
            double single = values[at];                                                                                \
            total += single;                                                                                           \
            squares += single * single;                                                                                \
            zeros += single == 0;                                                                                      \
            least_value = single < least_value ? single : least_value;                                                 \
            most_value = single > most_value ? single : most_value;                                                    \
        }                                                                                                              \
        if (!(squares >= least && squares <= most) && zeros != size) {                                                 \
            VARIANT(exact)(values, size, row);                                                                         \
            return;                                                                                                    \
        }                                                                                                              \
        row->sum += total;                                                                                             \
        row->squares += squares;                                                                                       \
        row->zeros += (double)zeros;                                                                                   \
        row->min = least_value < row->min ? least_value : row->min;                                                    \
        row->max = most_value > row->max ? most_value : row->max;                                                      \
    }

FAST_BLOCK(fast_floats, exact_floats, float, FloatVector, IntVector, MIN_FLOAT, MAX_FLOAT, LEAST_SQUARES, MOST_SQUARES)
FAST_BLOCK(fast_doubles, exact_doubles, double, DoubleVector, LongVector, MIN_DOUBLE, MAX_DOUBLE, LEAST_SQUARES_DOUBLE,
           MOST_SQUARES_DOUBLE)
#undef FAST_BLOCK

/* The sum of squares of a block, in lanes of its own type. */
#define SQUARES_BLOCK(name, type, Vector)                                                                              \
    TARGET static inline double VARIANT(name)(const type *values, int64_t size)                                        \
    {                                                                                                                  \
        enum { LANES = VECTOR / sizeof(type) };                                                                        \
        Vector square = {0}, other_square = {0}, value, other;                                                         \
        int64_t at = 0;                                                                                                \
        for (; at + 2 * LANES <= size; at += 2 * LANES) {                                                              \
            FETCH_AHEAD(values + at, VECTOR)                                                                           \
            __builtin_memcpy(&value, values + at, VECTOR);                                                             \
            __builtin_memcpy(&other, values + at + LANES, VECTOR);                                                     \
            square += value * value;                                                                                   \
            other_square += other * other;                                                                             \
        }                                                                                                              \
        double squares = 0;                                                                                            \
        square += other_square;                                                                                        \
        for (int lane = 0; lane < LANES; lane++)                                                                       \
            squares += square[lane];                                                                                   \
        for (; at < size; at++)                                                                                        \
            squares += (double)values[at] * (double)values[at];                                                        \
        return squares;                                                                                                \
    }

SQUARES_BLOCK(square_floats, float, FloatVector)
SQUARES_BLOCK(square_doubles, double, DoubleVector)
#undef SQUARES_BLOCK

/* Return a block as floats: where it lies, or widened into a buffer that stays in the first cache. */
TARGET static inline const float *VARIANT(floats)(const Tensor *tensor, int64_t at, int64_t size, float *buffer)
{
    if (tensor->type == FLOAT32)
        return (const float *)tensor->data + at;
    const uint16_t *halves = (const uint16_t *)tensor->data + at;
    if (tensor->type == BFLOAT16)
        for (int64_t i = 0; i < size; i++)
            buffer[i] = float_of_bits((uint32_t)halves[i] << 16);
    else
        for (int64_t i = 0; i < size; i++) {
            /* Exponent and fraction take their places in a float, and a product makes up for the other bias. */
            uint32_t half = halves[i], magnitude = half & 0x7fff;
            uint32_t bits = bits_of_float(float_of_bits(magnitude << 13) * 0x1p112f);
            bits |= magnitude >= 0x7c00 ? 0x7f800000u : 0u;
            buffer[i] = float_of_bits(bits | (half & 0x8000) << 16);
        }
    return buffer;
}

TARGET static Statistics VARIANT(row)(const Tensor *tensor, int exact)
{
    float buffer[BLOCK];
    Statistics row = {.count = (double)tensor->size, .min = INFINITY, .max = -INFINITY};
    for (int64_t at = 0; at < tensor->size; at += BLOCK) {
        int64_t size = tensor->size - at < BLOCK ? tensor->size - at : BLOCK;
        if (tensor->type == FLOAT64) {
            const double *values = (const double *)tensor->data + at;
            (exact ? VARIANT(exact_doubles) : VARIANT(fast_doubles))(values, size, &row);
        } else {
            const float *values = VARIANT(floats)(tensor, at, size, buffer);
            (exact ? VARIANT(exact_floats) : VARIANT(fast_floats))(values, size, &row);
        }
    }
    return row;
}

TARGET static void VARIANT(statistics)(const Tensor *tensors, int64_t count, Statistics *rows)
{
    unsigned int before = begin_fast();
    for (int64_t number = 0; number < count; number++) {
        rows[number] = VARIANT(row)(&tensors[number], 0);
        if (has_drowned(&rows[number]))
            rows[number] = VARIANT(row)(&tensors[number], 1);
    }
    end_fast(before);
}

TARGET static void VARIANT(squares)(const Tensor *tensors, int64_t count, double *sums)
{
    float buffer[BLOCK];
    unsigned int before = begin_fast();
    for (int64_t number = 0; number < count; number++) {
        const Tensor *tensor = &tensors[number];
        double sum = 0;
        for (int64_t at = 0; at < tensor->size; at += BLOCK) {
            int64_t size = tensor->size - at < BLOCK ? tensor->size - at : BLOCK;
            if (tensor->type == FLOAT64) {
                sum += VARIANT(square_doubles)((const double *)tensor->data + at, size);
                continue;
            }
            const float *values = VARIANT(floats)(tensor, at, size, buffer);
            double squares = VARIANT(square_floats)(values, size);
            if (!(squares >= LEAST_SQUARES && squares <= MOST_SQUARES)) {
                squares = 0;
                for (int64_t i = 0; i < size; i++)
                    squares += (double)values[i] * (double)values[i];
            }
            sum += squares;
        }
        sums[number] = sum;
    }
    end_fast(before);
}

/* Count a value where its exponent is not read off its bits: denormal. */
TARGET static inline void VARIANT(count_denormal)(double value, uint32_t *const rows[2], int lowest)
{
    if (value != 0)
        rows[!__builtin_signbit(value)][exponent_of(value) - lowest]++;
}

/* Count the exponents of floats: the upper nine bits are the sign and the exponent. Four tables, because a count that
 * was just written would have to be waited for; zeros and denormals share the first place and are parted afterwards. */
TARGET static void VARIANT(float_exponents)(const Tensor *tensor, uint32_t *const rows[2], int lowest)
{
    float buffer[BLOCK];
    uint32_t tables[4][512] = {{0}};
    for (int64_t at = 0; at < tensor->size; at += BLOCK) {
        int64_t size = tensor->size - at < BLOCK ? tensor->size - at : BLOCK, i = 0;
        const float *values = VARIANT(floats)(tensor, at, size, buffer);
        uint32_t before = tables[0][0] + tables[1][0] + tables[2][0] + tables[3][0] + tables[0][256] +
                          tables[1][256] + tables[2][256] + tables[3][256];
        for (; i + 4 <= size; i += 4)
            for (int lane = 0; lane < 4; lane++)
                tables[lane][bits_of_float(values[i + lane]) >> 23]++;
        for (; i < size; i++)
            tables[0][bits_of_float(values[i]) >> 23]++;
        uint32_t after = tables[0][0] + tables[1][0] + tables[2][0] + tables[3][0] + tables[0][256] + tables[1][256] +
                         tables[2][256] + tables[3][256];
        if (after == before)
            continue;
        uint32_t denormals = 0;
        for (i = 0; i < size; i++)
            denormals += (bits_of_float(values[i]) & INT32_MAX) - 1 < 0x7fffff;
        if (denormals)
            for (i = 0; i < size; i++)
                if ((bits_of_float(values[i]) & INT32_MAX) < 0x800000)
                    VARIANT(count_denormal)(values[i], rows, lowest);
    }
    for (int positive = 0; positive < 2; positive++)
        for (int field = 1; field < 255; field++) {
            int place = field + (positive ? 0 : 256);
            rows[positive][field - 127 - lowest] +=
                tables[0][place] + tables[1][place] + tables[2][place] + tables[3][place];
        }
}

TARGET static void VARIANT(double_exponents)(const Tensor *tensor, uint32_t *const rows[2], int lowest)
{
    const double *values = tensor->data;
    for (int64_t i = 0; i < tensor->size; i++) {
        uint64_t bits = bits_of_double(values[i]);
        int field = (int)(bits >> 52) & 0x7ff;
        if (field == 0)
            VARIANT(count_denormal)(values[i], rows, lowest);
        else if (field < 0x7ff)
            rows[!(bits >> 63)][field - 1023 - lowest]++;
    }
}

TARGET static void VARIANT(exponents)(const Tensor *tensors, int64_t count, uint32_t *counts, int lowest, int64_t bins)
{
    unsigned int before = begin_fast();
    for (int64_t number = 0; number < count; number++) {
        uint32_t *const rows[2] = {counts + number * bins, counts + (count + number) * bins};
        if (tensors[number].type == FLOAT64)
            VARIANT(double_exponents)(&tensors[number], rows, lowest);
        else
            VARIANT(float_exponents)(&tensors[number], rows, lowest);
    }
    end_fast(before);
}

#undef FloatVector
#undef IntVector
#undef DoubleVector
#undef LongVector
#undef VARIANT
#undef TARGET
#undef VECTOR
#undef MIN_FLOAT
#undef MAX_FLOAT
#undef MIN_DOUBLE
#undef MAX_DOUBLE
