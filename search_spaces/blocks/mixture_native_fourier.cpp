// Fourier transforms of many small real maps at once, straight into spectra that have frequencies first.
//
// The lanes of a vector are different maps, so that a transform is plain arithmetic on vectors, without shuffles, and a
// frequency of 16 maps is written in one piece. Two blocks of lanes go through one complex transform along a row, as its
// real and its imaginary part. Positions without data, in and out, cost nothing along the first axis.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

using std::int64_t;

extern "C" {

struct Grid {  // where the values of a map lie on a circle (of circles); one axis has rows = row_length = 1
    int64_t row_length, column_length;  // N of both axes, products of 2, 3 and 5
    int64_t values;
    const int64_t* rows;     // of each value, ascending, from 0 to row_length - 1
    const int64_t* columns;  // of each value, from 0 to column_length - 1
};

}  // extern "C"

namespace {

template <typename T>
struct Vector {
    typedef T Type __attribute__((vector_size(64)));
    static constexpr int64_t lanes = 64 / sizeof(T);
};
template <typename T>
using V = typename Vector<T>::Type;

template <typename T>
struct Complex {
    V<T> re, im;
};
template <typename T>
inline Complex<T> operator+(const Complex<T>& a, const Complex<T>& b) { return {a.re + b.re, a.im + b.im}; }
template <typename T>
inline Complex<T> operator-(const Complex<T>& a, const Complex<T>& b) { return {a.re - b.re, a.im - b.im}; }
template <typename T>
inline Complex<T> operator*(const Complex<T>& a, T s) { return {a.re * s, a.im * s}; }

template <typename T>
struct Root {
    T re, im;
};

// Times a root of unity, which is conjugated for inverse transforms.
template <bool INVERSE, typename T>
inline Complex<T> turn(const Complex<T>& a, const Root<T>& w) {
    if (INVERSE) return {a.re * w.re + a.im * w.im, a.im * w.re - a.re * w.im};
    return {a.re * w.re - a.im * w.im, a.im * w.re + a.re * w.im};
}

// Times -i, or +i for inverse transforms.
template <bool INVERSE, typename T>
inline Complex<T> quarter(const Complex<T>& a) {
    if (INVERSE) return {-a.im, a.re};
    return {a.im, -a.re};
}

template <typename T>
struct Array {
    explicit Array(int64_t count)
        : data(static_cast<T*>(std::aligned_alloc(64, std::max<int64_t>(count, 1) * sizeof(T))), &std::free) {}
    T& operator[](int64_t i) { return data.get()[i]; }
    std::unique_ptr<T[], decltype(&std::free)> data;
};

template <typename T>
struct Plan {
    explicit Plan(int64_t length) : length(length), roots(length) {
        for (int64_t i = 0; i < length; ++i) {
            const double angle = -2 * M_PI * double(i) / double(length);
            roots[i] = {T(std::cos(angle)), T(std::sin(angle))};
        }
        int64_t rest = length;
        for (int64_t radix : {4, 2, 3, 5})
            for (; rest % radix == 0; rest /= radix) radices.push_back(radix);
    }
    int64_t length;
    std::vector<Root<T>> roots;  // e^{-2πi k / N}
    std::vector<int64_t> radices;
};

template <typename T>
const Plan<T>& plan_of(int64_t length) {
    thread_local std::map<int64_t, Plan<T>> plans;
    return plans.try_emplace(length, length).first->second;
}

template <bool INVERSE, int RADIX, typename T>
inline void butterfly(Complex<T>* x) {
    if constexpr (RADIX == 2) {
        const Complex<T> a = x[0], b = x[1];
        x[0] = a + b, x[1] = a - b;
    } else if constexpr (RADIX == 3) {
        const Complex<T> sum = x[1] + x[2], middle = x[0] - sum * T(0.5);
        const Complex<T> side = quarter<INVERSE>((x[1] - x[2]) * T(0.86602540378443864676));
        x[0] = x[0] + sum, x[1] = middle + side, x[2] = middle - side;
    } else if constexpr (RADIX == 4) {
        const Complex<T> a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = quarter<INVERSE>(x[1] - x[3]);
        x[0] = a + c, x[1] = b + d, x[2] = a - c, x[3] = b - d;
    } else {
        constexpr T c1 = T(0.30901699437494742410), c2 = T(-0.80901699437494742410);
        constexpr T s1 = T(0.95105651629515357212), s2 = T(0.58778525229247312917);
        const Complex<T> a = x[1] + x[4], b = x[2] + x[3], c = x[1] - x[4], d = x[2] - x[3];
        const Complex<T> p = x[0] + a * c1 + b * c2, q = x[0] + a * c2 + b * c1;
        const Complex<T> r = quarter<INVERSE>(c * s1 + d * s2), s = quarter<INVERSE>(c * s2 - d * s1);
        x[0] = x[0] + a + b, x[1] = p + r, x[2] = q + s, x[3] = q - s, x[4] = p - r;
    }
}

// One pass of the self-sorting (Stockham) transform: blocks of length `length` that lie `step` apart.
template <bool INVERSE, int RADIX, typename T>
void pass(const Plan<T>& plan, const Complex<T>* from, Complex<T>* to, int64_t length, int64_t step) {
    const int64_t part = length / RADIX;
    for (int64_t p = 0; p < part; ++p)
        for (int64_t q = 0; q < step; ++q) {
            Complex<T> x[RADIX];
            for (int k = 0; k < RADIX; ++k) x[k] = from[q + step * (p + part * k)];
            butterfly<INVERSE, RADIX>(x);
            to[q + step * RADIX * p] = x[0];
            for (int k = 1; k < RADIX; ++k)
                to[q + step * (RADIX * p + k)] = p ? turn<INVERSE>(x[k], plan.roots[step * p * k]) : x[k];
        }
}

// Transforms `data` without scaling; the result lies in the array that is returned, one of the two.
template <bool INVERSE, typename T>
Complex<T>* transform(const Plan<T>& plan, Complex<T>* data, Complex<T>* other) {
    int64_t length = plan.length, step = 1;
    for (const int64_t radix : plan.radices) {
        switch (radix) {
            case 2: pass<INVERSE, 2>(plan, data, other, length, step); break;
            case 3: pass<INVERSE, 3>(plan, data, other, length, step); break;
            case 4: pass<INVERSE, 4>(plan, data, other, length, step); break;
            default: pass<INVERSE, 5>(plan, data, other, length, step);
        }
        std::swap(data, other);
        length /= radix, step *= radix;
    }
    return data;
}

// Values that share a row: `begin` to `end` of the grid's lists.
struct Row {
    int64_t row, begin, end;
};

std::vector<Row> rows_of(const Grid& grid) {
    std::vector<Row> rows;
    for (int64_t k = 0; k < grid.values; ++k) {
        if (rows.empty() || rows.back().row != grid.rows[k]) rows.push_back({grid.rows[k], k, k});
        rows.back().end = k + 1;
    }
    return rows;
}

// The lanes of one frequency to or from `count` complex numbers side by side.
template <typename T>
inline void store(const Complex<T>& from, T* to, int64_t count) {
    for (int64_t lane = 0; lane < count; ++lane) to[2 * lane] = from.re[lane], to[2 * lane + 1] = from.im[lane];
}
template <typename T>
inline Complex<T> load(const T* from, int64_t count) {
    Complex<T> to = {};
    for (int64_t lane = 0; lane < count; ++lane) to.re[lane] = from[2 * lane], to.im[lane] = from[2 * lane + 1];
    return to;
}
#if defined(__AVX512F__)
template <>
inline void store<float>(const Complex<float>& from, float* to, int64_t count) {
    if (count < 16) {
        for (int64_t lane = 0; lane < count; ++lane) to[2 * lane] = from.re[lane], to[2 * lane + 1] = from.im[lane];
        return;
    }
    const V<float> low = __builtin_shufflevector(from.re, from.im, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const V<float> high =
        __builtin_shufflevector(from.re, from.im, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    std::memcpy(to, &low, 64);
    std::memcpy(to + 16, &high, 64);
}
template <>
inline Complex<float> load<float>(const float* from, int64_t count) {
    Complex<float> to = {};
    if (count < 16) {
        for (int64_t lane = 0; lane < count; ++lane) to.re[lane] = from[2 * lane], to.im[lane] = from[2 * lane + 1];
        return to;
    }
    V<float> low, high;
    std::memcpy(&low, from, 64);
    std::memcpy(&high, from + 16, 64);
    to.re = __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    to.im = __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return to;
}
#endif

template <typename T>
struct Scratch {
    Scratch(const Grid& grid, int64_t rows)
        : rows(rows), line(grid.column_length), other_line(grid.column_length), column(grid.row_length),
          other_column(grid.row_length), halves(2 * rows * (grid.column_length / 2 + 1)) {}
    // of block 0 or 1: the half spectrum of a row, frequencies first
    Complex<T>& half(int64_t block, int64_t frequency, int64_t row) {
        return halves[(frequency * 2 + block) * rows + row];
    }
    int64_t rows;
    Array<Complex<T>> line, other_line, column, other_column, halves;
};

template <typename T>
void forward_block(const Grid& grid, const std::vector<Row>& rows, Scratch<T>& scratch, const T* values,
                   int64_t map_pitch, int64_t value_pitch, T* spectra, int64_t maps, int64_t count) {
    constexpr int64_t L = Vector<T>::lanes;
    const int64_t n = grid.column_length;
    const Plan<T>& along = plan_of<T>(n);
    const Plan<T>& across = plan_of<T>(grid.row_length);
    for (size_t r = 0; r < rows.size(); ++r) {
        std::memset(static_cast<void*>(&scratch.line[0]), 0, n * sizeof(Complex<T>));
        for (int64_t lane = 0; lane < count; ++lane) {
            T* to = reinterpret_cast<T*>(&scratch.line[0]) + lane;  // block 1 is the imaginary part
            for (int64_t k = rows[r].begin; k < rows[r].end; ++k)
                to[grid.columns[k] * 2 * L] = values[lane * map_pitch + k * value_pitch];
        }
        const Complex<T>* z = transform<false>(along, &scratch.line[0], &scratch.other_line[0]);
        for (int64_t f = 0; f <= n / 2; ++f) {
            const Complex<T> a = z[f], b = z[f ? n - f : 0];
            scratch.half(0, f, r) = Complex<T>{a.re + b.re, a.im - b.im} * T(0.5);
            scratch.half(1, f, r) = Complex<T>{a.im + b.im, b.re - a.re} * T(0.5);
        }
    }
    for (int64_t f = 0; f <= n / 2; ++f)
        for (int64_t block = 0; block * L < count; ++block) {
            Complex<T>* column = &scratch.column[0];
            std::memset(static_cast<void*>(column), 0, grid.row_length * sizeof(Complex<T>));
            for (size_t r = 0; r < rows.size(); ++r) column[rows[r].row] = scratch.half(block, f, r);
            const Complex<T>* z = transform<false>(across, column, &scratch.other_column[0]);
            for (int64_t g = 0; g < grid.row_length; ++g)
                store<T>(z[g], spectra + 2 * ((f * grid.row_length + g) * maps + block * L), std::min(L, count - block * L));
        }
}

template <typename T>
void inverse_block(const Grid& grid, const std::vector<Row>& rows, Scratch<T>& scratch, T* values, int64_t map_pitch,
                   int64_t value_pitch, const T* spectra, int64_t maps, int64_t count) {
    constexpr int64_t L = Vector<T>::lanes;
    const int64_t n = grid.column_length;
    const Plan<T>& along = plan_of<T>(n);
    const Plan<T>& across = plan_of<T>(grid.row_length);
    const T scale = T(1) / T(n * grid.row_length);
    for (int64_t f = 0; f <= n / 2; ++f)
        for (int64_t block = 0; block < 2; ++block) {
            const int64_t own = std::min(L, count - block * L);
            Complex<T>* column = &scratch.column[0];
            for (int64_t g = 0; g < grid.row_length; ++g)
                column[g] = own > 0 ? load<T>(spectra + 2 * ((f * grid.row_length + g) * maps + block * L), own)
                                    : Complex<T>{};
            const Complex<T>* z = transform<true>(across, column, &scratch.other_column[0]);
            for (size_t r = 0; r < rows.size(); ++r) scratch.half(block, f, r) = z[rows[r].row] * scale;
        }
    for (size_t r = 0; r < rows.size(); ++r) {
        Complex<T>* line = &scratch.line[0];
        for (int64_t f = 0; f <= n / 2; ++f) {
            const Complex<T> a = scratch.half(0, f, r), b = scratch.half(1, f, r);
            line[f] = {a.re - b.im, a.im + b.re};
            if (f && 2 * f < n) line[n - f] = {a.re + b.im, b.re - a.im};
        }
        const T* z = reinterpret_cast<const T*>(transform<true>(along, line, &scratch.other_line[0]));
        for (int64_t lane = 0; lane < count; ++lane)
            for (int64_t k = rows[r].begin; k < rows[r].end; ++k)
                values[lane * map_pitch + k * value_pitch] = z[grid.columns[k] * 2 * L + lane];
    }
}

template <typename T>
void run_forward(const Grid& grid, const T* values, int64_t map_pitch, int64_t value_pitch, T* spectra, int64_t maps,
                 int64_t first, int64_t last) {
    const std::vector<Row> rows = rows_of(grid);
    Scratch<T> scratch(grid, rows.size());
    for (int64_t m = first; m < last; m += 2 * Vector<T>::lanes)
        forward_block(grid, rows, scratch, values + m * map_pitch, map_pitch, value_pitch, spectra + 2 * m, maps,
                      std::min(2 * Vector<T>::lanes, last - m));
}

template <typename T>
void run_inverse(const Grid& grid, T* values, int64_t map_pitch, int64_t value_pitch, const T* spectra, int64_t maps,
                 int64_t first, int64_t last) {
    const std::vector<Row> rows = rows_of(grid);
    Scratch<T> scratch(grid, rows.size());
    for (int64_t m = first; m < last; m += 2 * Vector<T>::lanes)
        inverse_block(grid, rows, scratch, values + m * map_pitch, map_pitch, value_pitch, spectra + 2 * m, maps,
                      std::min(2 * Vector<T>::lanes, last - m));
}

}  // namespace

extern "C" {

// Value k of map m lies at values[m * map_pitch + k * value_pitch]. Spectra are complex (column_length / 2 + 1,
// row_length, maps): e^{-...} forward; the inverse divides by both lengths. Maps `first` to `last` are transformed.
void spectra_float(const Grid* grid, const float* values, int64_t map_pitch, int64_t value_pitch, float* spectra,
                   int64_t maps, int64_t first, int64_t last) {
    run_forward(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}
void spectra_double(const Grid* grid, const double* values, int64_t map_pitch, int64_t value_pitch, double* spectra,
                    int64_t maps, int64_t first, int64_t last) {
    run_forward(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}
void values_float(const Grid* grid, float* values, int64_t map_pitch, int64_t value_pitch, const float* spectra,
                  int64_t maps, int64_t first, int64_t last) {
    run_inverse(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}
void values_double(const Grid* grid, double* values, int64_t map_pitch, int64_t value_pitch, const double* spectra,
                   int64_t maps, int64_t first, int64_t last) {
    run_inverse(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}

}  // extern "C"
