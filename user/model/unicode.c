/* SPDX-License-Identifier: Apache-2.0
 * Classes, UTF-8 and NFC. NFC rewrites only what a quick check cannot clear: a *marked* character (it combines with
 * something before it, moves, or is never composed) together with the unmarked one before it, up to the next unmarked
 * one. Everything else is copied.
 */
#include "model/unicode.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

uint8_t unicode_class_of[UNICODE_FLAT];

static uint8_t marked[UNICODE_FLAT / 8];
static uint16_t pair_at[4096]; /* decompositions that compose, by (a, b) */
static unsigned npairs;

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

static unsigned run_value(const uint32_t *runs, unsigned n, uint32_t c)
{
	unsigned lo = 0, hi = n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (runs[mid] >> 8 <= c)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? runs[lo - 1] & 0xff : 0;
}

unsigned unicode_class_far(uint32_t c)
{
	return run_value(unicode_class_runs, unicode_class_runs_n, c);
}

static unsigned combining(uint32_t c)
{
	return c < 0x300 ? 0 : run_value(unicode_combining_runs, unicode_combining_runs_n, c);
}

static void mark(uint32_t c)
{
	if (c < UNICODE_FLAT)
		marked[c / 8] |= (uint8_t)(1u << c % 8);
}

static bool is_marked(uint32_t c)
{
	return c < UNICODE_FLAT && marked[c / 8] >> c % 8 & 1;
}

static int pair_order(uint32_t a1, uint32_t b1, uint32_t a2, uint32_t b2)
{
	return a1 != a2 ? (a1 < a2 ? -1 : 1) : b1 != b2 ? (b1 < b2 ? -1 : 1) : 0;
}

static int by_pair(const void *x, const void *y)
{
	const struct decomposition *d = &unicode_decompositions[*(const uint16_t *)x];
	const struct decomposition *e = &unicode_decompositions[*(const uint16_t *)y];

	return pair_order(d->a, d->b, e->a, e->b);
}

static void init(void)
{
	for (unsigned i = 0; i < unicode_class_runs_n; i++) {
		uint32_t from = unicode_class_runs[i] >> 8;
		uint32_t to = i + 1 < unicode_class_runs_n ? unicode_class_runs[i + 1] >> 8 : UNICODE_FLAT;

		if (from < UNICODE_FLAT)
			memset(unicode_class_of + from, (int)(unicode_class_runs[i] & 0xff),
			       (to < UNICODE_FLAT ? to : UNICODE_FLAT) - from);
	}
	for (uint32_t c = 0x300; c < UNICODE_FLAT; c++)
		if (combining(c))
			mark(c);
	for (unsigned i = 0; i < unicode_decompositions_n; i++) {
		const struct decomposition *d = &unicode_decompositions[i];

		mark(d->composes ? d->b : d->c);
		if (d->composes && npairs < sizeof(pair_at) / sizeof(pair_at[0]))
			pair_at[npairs++] = (uint16_t)i;
	}
	qsort(pair_at, npairs, sizeof(pair_at[0]), by_pair);
	for (uint32_t c = V_BASE; c < V_BASE + V_COUNT; c++)
		mark(c);
	for (uint32_t c = T_BASE + 1; c < T_BASE + T_COUNT; c++)
		mark(c);
}

void unicode_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init);
}

/* --- UTF-8 --- */

/* Bytes of the character at <p>; 0: none; -1: the end cuts one off. */
static int utf8_len(const unsigned char *p, size_t n)
{
	unsigned c = p[0], lo = 0x80, hi = 0xbf;
	unsigned len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	if (c == 0xe0)
		lo = 0xa0;
	else if (c == 0xed)
		hi = 0x9f;
	else if (c == 0xf0)
		lo = 0x90;
	else if (c == 0xf4)
		hi = 0x8f;
	for (unsigned i = 1; i < len; i++, lo = 0x80, hi = 0xbf) {
		if (i == n)
			return -1;
		if (p[i] < lo || p[i] > hi)
			return 0;
	}
	return (int)len;
}

size_t utf8_valid(const char *text, size_t n, bool *ret_cut)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t i = 0;
	uint64_t w;

	*ret_cut = false;
	while (i < n) {
		int len;

		while (n - i >= sizeof(w)) {
			memcpy(&w, p + i, sizeof(w));
			if (w & UINT64_C(0x8080808080808080))
				break;
			i += sizeof(w);
		}
		if (i == n)
			break;
		len = utf8_len(p + i, n - i);
		if (len <= 0) {
			*ret_cut = len < 0;
			break;
		}
		i += (unsigned)len;
	}
	return i;
}

/* --- NFC --- */

#define MARKED_LEAD 0xcc /* of U+0300: no character before it is marked */

/* Bytes at the front that are below MARKED_LEAD, some at a time: what is left may be so too. */
#ifdef __SSE2__
static size_t skip_low(const unsigned char *p, size_t n)
{
	const __m128i below = _mm_set1_epi8((char)(MARKED_LEAD - 1));
	size_t i = 0;

	for (; n - i >= 64; i += 64) {
		const __m128i *v = (const __m128i *)(const void *)(p + i);
		__m128i a = _mm_max_epu8(_mm_loadu_si128(v), _mm_loadu_si128(v + 1));
		__m128i b = _mm_max_epu8(_mm_loadu_si128(v + 2), _mm_loadu_si128(v + 3));
		__m128i over = _mm_subs_epu8(_mm_max_epu8(a, b), below);

		if (_mm_movemask_epi8(_mm_cmpeq_epi8(over, _mm_setzero_si128())) != 0xffff)
			break;
	}
	return i;
}
#else
static size_t skip_low(const unsigned char *p, size_t n)
{
	typedef unsigned char bytes __attribute__((vector_size(32)));
	typedef uint64_t words __attribute__((vector_size(32)));
	size_t i = 0;

	for (; n - i >= sizeof(bytes); i += sizeof(bytes)) {
		bytes b;
		words high;

		memcpy(&b, p + i, sizeof(b));
		high = (words)(b >= MARKED_LEAD);
		if (high[0] | high[1] | high[2] | high[3])
			break;
	}
	return i;
}
#endif

bool nfc_may_change(const char *p, size_t n)
{
	size_t i = skip_low((const unsigned char *)p, n);

	while (i < n && (unsigned char)p[i] < MARKED_LEAD)
		i++;
	return i < n;
}

/* The first marked character at or behind <start>; <n>: none. *ret_before: the start of the character before it. */
static size_t next_marked(const unsigned char *p, size_t start, size_t n, size_t *ret_before)
{
	size_t i = start;
	unsigned len;

	while (i < n) {
		if (p[i] < MARKED_LEAD) {
			i += skip_low(p + i, n - i);
			while (i < n && p[i] < MARKED_LEAD)
				i++;
			continue;
		}
		if (is_marked(utf8_char(p + i, &len)))
			break;
		i += len;
	}
	*ret_before = i;
	while (*ret_before > start) {
		--*ret_before;
		if ((p[*ret_before] & 0xc0) != 0x80)
			break;
	}
	return i;
}

bool nfc_inert(const char *p, size_t n)
{
	size_t before;

	return next_marked((const unsigned char *)p, 0, n, &before) == n;
}

/* A code point with its combining class and its place, so that an unstable sort is stable. */
#define POINT(class, at, c) ((uint64_t)(class) << 56 | (uint64_t)(at) << 21 | (c))
#define POINT_C(x)	    ((uint32_t)((x) & 0x1fffff))
#define POINT_CLASS(x)	    ((unsigned)((x) >> 56))

static int put_point(struct buf *points, uint32_t c)
{
	uint64_t x = POINT(combining(c), buf_len(points) / sizeof(x), c);

	return buf_put(points, &x, sizeof(x));
}

static int decompose(struct buf *points, uint32_t c)
{
	unsigned lo = 0, hi = unicode_decompositions_n;
	int r;

	if (c - S_BASE < S_COUNT) {
		c -= S_BASE;
		r = put_point(points, L_BASE + c / (V_COUNT * T_COUNT));
		if (!r)
			r = put_point(points, V_BASE + c % (V_COUNT * T_COUNT) / T_COUNT);
		return r || c % T_COUNT == 0 ? r : put_point(points, T_BASE + c % T_COUNT);
	}
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct decomposition *d = &unicode_decompositions[mid];

		if (d->c == c) {
			r = decompose(points, d->a);
			return r || !d->b ? r : decompose(points, d->b);
		}
		if (d->c < c)
			lo = mid + 1;
		else
			hi = mid;
	}
	return put_point(points, c);
}

static uint32_t compose(uint32_t a, uint32_t b)
{
	unsigned lo = 0, hi = npairs;

	if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
		return S_BASE + ((a - L_BASE) * V_COUNT + b - V_BASE) * T_COUNT;
	if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
		return a + b - T_BASE;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct decomposition *d = &unicode_decompositions[pair_at[mid]];
		int o = pair_order(d->a, d->b, a, b);

		if (o == 0)
			return d->c;
		if (o < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return 0;
}

static int by_value(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

	return a < b ? -1 : a > b;
}

/* Canonical order, then composition in place; returns how many are left. */
static size_t order_and_compose(uint64_t *x, size_t n)
{
	size_t out = 0, starter = SIZE_MAX;
	unsigned last = 0;

	for (size_t i = 0, j; i < n; i = j) {
		for (j = i + 1; POINT_CLASS(x[i]) && j < n && POINT_CLASS(x[j]); j++)
			;
		if (j - i > 1)
			qsort(x + i, j - i, sizeof(*x), by_value);
	}
	for (size_t i = 0; i < n; i++) {
		unsigned class = POINT_CLASS(x[i]);
		bool open = starter != SIZE_MAX && (starter + 1 == out || (last && last < class));
		uint32_t c = open ? compose(POINT_C(x[starter]), POINT_C(x[i])) : 0;

		if (c) {
			x[starter] = POINT(0, 0, c);
			continue;
		}
		if (!class)
			starter = out;
		last = class;
		x[out++] = x[i];
	}
	return out;
}

/* A run from an unmarked character (or the text's beginning) over marked ones. */
static int put_run(struct buf *out, struct buf *points, const unsigned char *p, const unsigned char *end)
{
	uint64_t *x;
	size_t n;
	char *to;
	int r;

	buf_consume(points, buf_len(points));
	for (unsigned len; p < end; p += len) {
		r = decompose(points, utf8_char(p, &len));
		if (r)
			return r;
	}
	x = (uint64_t *)(void *)buf_data(points);
	n = order_and_compose(x, buf_len(points) / sizeof(*x));
	to = buf_room(out, 4 * n);
	if (!to)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		unsigned len = utf8_put(to, POINT_C(x[i]));

		buf_commit(out, len);
		to += len;
	}
	return 0;
}

int nfc_put(struct buf *out, const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	struct buf points = { 0 };
	size_t copied = 0, from, at, to;
	int r = 0;

	for (at = next_marked(p, 0, n, &from); at < n && !r; at = next_marked(p, to, n, &from)) {
		unsigned len;

		for (to = at; to < n; to += len)
			if (!is_marked(utf8_char(p + to, &len)))
				break;
		r = buf_put(out, p + copied, from - copied);
		if (!r)
			r = put_run(out, &points, p + from, p + to);
		copied = to;
	}
	buf_free(&points);
	return r ? r : buf_put(out, p + copied, n - copied);
}
