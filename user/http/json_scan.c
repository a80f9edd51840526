/* SPDX-License-Identifier: Apache-2.0
 *
 * A prompt is one long string, so these loops are what a body costs. Each exists for AVX2 and as plain C, the first
 * also for SSE2 (every x86-64), the second also for AVX-512 with VBMI2 (servers since Ice Lake and Zen 4).
 *
 * UTF-8 by AVX2 follows Keiser and Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte" (2021): each pair
 * of neighbouring bytes is classified by three table look-ups on nibbles, whose common bits are the ways in which the
 * pair is wrong; that third and fourth bytes stand where a leading byte demands them is checked beside it.
 */
#include "http/json_scan.h"

#include <errno.h>
#include <string.h>

const uint8_t json_hex_digit[256] = {
	['0'] = 1,  ['1'] = 2,	['2'] = 3,  ['3'] = 4,	['4'] = 5,  ['5'] = 6,	['6'] = 7,  ['7'] = 8,
	['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
	['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

const char json_escape[256] = {
	['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t',
};

#define ONES (~0ULL / 255) /* 0x01 in each byte */

/* 0x80 in each byte of <v> that is zero, and maybe in bytes above one that is. */
static uint64_t zero_bytes(uint64_t v)
{
	return (v - ONES) & ~v & (ONES << 7);
}

static const char *scan_plain(const char *p, const char *end, uint64_t *high)
{
	uint64_t h = 0;

	for (; end - p >= 8; p += 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		if (zero_bytes(v ^ ONES * '"') | zero_bytes(v ^ ONES * '\\') | zero_bytes(v & ~(ONES * 0x1f)))
			break;
		h |= v;
	}
	for (; p < end; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '"' || c == '\\' || c < 0x20)
			break;
		h |= c;
	}
	*high |= h & (ONES << 7);
	return p;
}

static const char *copy_plain(const char *p, const char *end, char **pto, uint64_t *high)
{
	char *to = *pto;

	while (p < end) {
		const char *q = json_scan.text(p, end, high);

		memcpy(to, p, (size_t)(q - p));
		to += q - p;
		p = q;
		if (end - p < 2 || *p != '\\' || !json_escape[(unsigned char)p[1]])
			break;
		*to++ = json_escape[(unsigned char)p[1]];
		p += 2;
	}
	*pto = to;
	return p;
}

static bool utf8_plain(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;

	while (p < end) {
		unsigned c = *p, more, low = 0x80, up = 0xbf;
		uint64_t v;

		if (end - p >= 8) {
			memcpy(&v, p, 8);
			if (!(v & (ONES << 7))) {
				p += 8;
				continue;
			}
		}
		p++;
		if (c < 0x80)
			continue;
		if (c < 0xc2 || c > 0xf4)
			return false;
		more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		/* The second byte's range shuts out overlong forms, surrogates and what lies above U+10FFFF. */
		if (c == 0xe0)
			low = 0xa0;
		else if (c == 0xed)
			up = 0x9f;
		else if (c == 0xf0)
			low = 0x90;
		else if (c == 0xf4)
			up = 0x8f;
		if ((size_t)(end - p) < more || *p < low || *p > up)
			return false;
		for (p++; --more; p++)
			if ((*p & 0xc0) != 0x80)
				return false;
	}
	return true;
}

#ifdef __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

static const char *scan_sse2(const char *p, const char *end, uint64_t *high)
{
	const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);

	for (; end - p >= 16; p += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)p);
		__m128i s = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
		unsigned m = (unsigned)_mm_movemask_epi8(_mm_or_si128(s, _mm_cmpeq_epi8(_mm_min_epu8(v, control), v)));
		unsigned h = (unsigned)_mm_movemask_epi8(v);

		if (m) {
			if (h & (m - 1) & ~m)
				*high |= 0x80;
			return p + __builtin_ctz(m);
		}
		*high |= h ? 0x80 : 0;
	}
	return scan_plain(p, end, high);
}

AVX2 static __m256i stop_bytes(__m256i v)
{
	__m256i s = _mm256_or_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('"')),
				    _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\\')));

	return _mm256_or_si256(s, _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v));
}

AVX2 static const char *scan_avx2(const char *p, const char *end, uint64_t *high)
{
	__m256i all = _mm256_setzero_si256();
	uint32_t m, h;

	for (; end - p >= 32; p += 32) {
		__m256i v = _mm256_loadu_si256((const __m256i *)p);

		m = (uint32_t)_mm256_movemask_epi8(stop_bytes(v));
		if (m) {
			h = (uint32_t)_mm256_movemask_epi8(v) & (m - 1) & ~m;
			if (h | (uint32_t)_mm256_movemask_epi8(all))
				*high |= 0x80;
			return p + __builtin_ctz(m);
		}
		all = _mm256_or_si256(all, v);
	}
	*high |= _mm256_movemask_epi8(all) ? 0x80 : 0;
	return scan_sse2(p, end, high);
}

/* Is there, well inside of the text, a \u that is no surrogate's? */
static inline bool simple_u(const char **pp, const char *end, char **to)
{
	const unsigned char *p = (const unsigned char *)*pp;
	unsigned c;

	if (end - *pp < 6 || p[0] != '\\' || p[1] != 'u' || !json_hex_digit[p[2]] || !json_hex_digit[p[3]] ||
	    !json_hex_digit[p[4]] || !json_hex_digit[p[5]])
		return false;
	c = hex4(*pp + 2);
	if (c >= 0xd800 && c <= 0xdfff)
		return false;
	*to += utf8_put(*to, c);
	*pp += 6;
	return true;
}

AVX2 static const char *copy_avx2(const char *p, const char *end, char **pto, uint64_t *high)
{
	__m256i all = _mm256_setzero_si256();
	char *to = *pto;
	uint32_t h = 0;

	while (end - p >= 32) {
		__m256i v = _mm256_loadu_si256((const __m256i *)p);
		uint32_t m = (uint32_t)_mm256_movemask_epi8(stop_bytes(v));
		int n;

		_mm256_storeu_si256((__m256i *)to, v);
		if (!m) {
			all = _mm256_or_si256(all, v);
			p += 32;
			to += 32;
			continue;
		}
		n = __builtin_ctz(m);
		h |= (uint32_t)_mm256_movemask_epi8(v) & (m - 1) & ~m;
		p += n;
		to += n;
		/* Escapes often come two at a time. */
		do {
			char c = end - p < 2 || *p != '\\' ? '\0' : json_escape[(unsigned char)p[1]];

			if (c) {
				*to++ = c;
				p += 2;
			} else if (!simple_u(&p, end, &to)) {
				goto out;
			}
		} while (p < end && *p == '\\');
	}
	*high |= h | (uint32_t)_mm256_movemask_epi8(all);
	*pto = to;
	return copy_plain(p, end, pto, high);
out:
	*high |= h | (uint32_t)_mm256_movemask_epi8(all);
	*pto = to;
	return p;
}

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")))

/* Backslashes that begin an escape, if the first byte is not a part of one (after simdjson): of each run every other
 * one, so borrow through the runs that begin at even places and through those that begin at odd ones. */
static inline uint64_t escapes_begin(uint64_t slashes)
{
	const uint64_t odd = 0xaaaaaaaaaaaaaaaaULL;

	return ((((slashes << 1) | odd) - slashes) ^ odd) & slashes;
}

/* 64 bytes at once, escapes of two bytes among them: these are looked up, and the backslashes squeezed out. Branches
 * on each escape cannot be foreseen, and would cost more than all the rest. */
AVX512 static const char *copy_avx512(const char *p, const char *end, char **pto, uint64_t *high)
{
	const __m512i low = _mm512_loadu_si512(json_escape), up = _mm512_loadu_si512(json_escape + 64);
	const uint64_t last = 1ULL << 63;
	uint64_t h = 0;
	char *to = *pto;

	while (end - p >= 64) {
		__m512i v = _mm512_loadu_si512(p), meant = _mm512_permutex2var_epi8(low, v, up);
		uint64_t begin = escapes_begin(_mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\\')));
		uint64_t wide = _mm512_movepi8_mask(v), escaped = begin << 1, good, stop;

		stop = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('"')) |
		       _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20));
		/* Not those that mean nothing by themselves; the last byte's partner is not here. */
		stop = (stop & ~escaped) | (escaped & ~_mm512_test_epi8_mask(meant, meant)) >> 1 |
		       (escaped & wide) >> 1 | (begin & last);
		good = _blsmsk_u64(stop) >> 1;
		if (!stop)
			good = ~0ULL;
		v = _mm512_mask_mov_epi8(v, escaped, meant);
		_mm512_storeu_si512(to, _mm512_maskz_compress_epi8(good & ~begin, v));
		to += _mm_popcnt_u64(good & ~begin);
		h |= wide & good;
		if (!stop) {
			p += 64;
			continue;
		}
		p += _tzcnt_u64(stop);
		if (*p != '\\')
			goto out;
		if (stop == last)
			continue;
		do {
			if (!simple_u(&p, end, &to))
				goto out;
		} while (end - p >= 2 && p[0] == '\\' && p[1] == 'u');
	}
	*high |= h;
	*pto = to;
	return copy_avx2(p, end, pto, high);
out:
	*high |= h;
	*pto = to;
	return p;
}

enum {
	TOO_SHORT = 1 << 0,
	TOO_LONG = 1 << 1,
	OVERLONG_3 = 1 << 2,
	TOO_LARGE = 1 << 3,
	SURROGATE = 1 << 4,
	OVERLONG_2 = 1 << 5,
	TOO_LARGE_1000 = 1 << 6, /* shares its bit with OVERLONG_4: they differ in the first byte */
	OVERLONG_4 = 1 << 6,
	TWO_CONTS = 1 << 7,
	CARRY = TOO_SHORT | TOO_LONG | TWO_CONTS,
	LARGE = CARRY | TOO_LARGE | TOO_LARGE_1000,
};

static const uint8_t first_high[16] = {
	TOO_LONG,
	TOO_LONG,
	TOO_LONG,
	TOO_LONG,
	TOO_LONG,
	TOO_LONG,
	TOO_LONG,
	TOO_LONG,
	TWO_CONTS,
	TWO_CONTS,
	TWO_CONTS,
	TWO_CONTS,
	TOO_SHORT | OVERLONG_2,
	TOO_SHORT,
	TOO_SHORT | OVERLONG_3 | SURROGATE,
	TOO_SHORT | TOO_LARGE | TOO_LARGE_1000 | OVERLONG_4,
};

static const uint8_t first_low[16] = {
	CARRY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4,
	CARRY | OVERLONG_2,
	CARRY,
	CARRY,
	CARRY | TOO_LARGE,
	LARGE,
	LARGE,
	LARGE,
	LARGE,
	LARGE,
	LARGE,
	LARGE,
	LARGE,
	LARGE | SURROGATE,
	LARGE,
	LARGE,
};

static const uint8_t second_high[16] = {
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_LONG | OVERLONG_2 | TWO_CONTS | OVERLONG_3 | TOO_LARGE_1000 | OVERLONG_4,
	TOO_LONG | OVERLONG_2 | TWO_CONTS | OVERLONG_3 | TOO_LARGE,
	TOO_LONG | OVERLONG_2 | TWO_CONTS | SURROGATE | TOO_LARGE,
	TOO_LONG | OVERLONG_2 | TWO_CONTS | SURROGATE | TOO_LARGE,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
	TOO_SHORT,
};

AVX2 static __m256i table(const uint8_t t[16], __m256i nibbles)
{
	return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t)), nibbles);
}

AVX2 static __m256i utf8_errors(__m256i v, __m256i before)
{
	const __m256i low = _mm256_set1_epi8(0x0f);
	__m256i across = _mm256_permute2x128_si256(before, v, 0x21);
	__m256i prev1 = _mm256_alignr_epi8(v, across, 15);
	__m256i prev2 = _mm256_alignr_epi8(v, across, 14);
	__m256i prev3 = _mm256_alignr_epi8(v, across, 13);
	__m256i pair = _mm256_and_si256(table(first_high, _mm256_and_si256(_mm256_srli_epi16(prev1, 4), low)),
					table(first_low, _mm256_and_si256(prev1, low)));
	__m256i third = _mm256_subs_epu8(prev2, _mm256_set1_epi8(0xe0 - 0x80));
	__m256i fourth = _mm256_subs_epu8(prev3, _mm256_set1_epi8(0xf0 - 0x80));
	__m256i must = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char)0x80));

	pair = _mm256_and_si256(pair, table(second_high, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
	return _mm256_xor_si256(must, pair);
}

AVX2 static bool utf8_avx2(const char *p, size_t n)
{
	__m256i before = _mm256_setzero_si256(), errors = before, v;
	char tail[32] = { 0 }; /* at least one zero behind the text: a character cut short is one followed by ASCII */

	for (; n >= 32; p += 32, n -= 32) {
		v = _mm256_loadu_si256((const __m256i *)p);
		errors = _mm256_or_si256(errors, utf8_errors(v, before));
		before = v;
	}
	memcpy(tail, p, n);
	v = _mm256_loadu_si256((const __m256i *)tail);
	errors = _mm256_or_si256(errors, utf8_errors(v, before));
	return _mm256_testz_si256(errors, errors);
}

struct json_scan json_scan = { scan_sse2, copy_plain, utf8_plain };
#else
struct json_scan json_scan = { scan_plain, copy_plain, utf8_plain };
#endif

int json_scan_use(const char *name)
{
	if (strcmp(name, "plain") == 0) {
		json_scan = (struct json_scan){ scan_plain, copy_plain, utf8_plain };
		return 0;
	}
#ifdef __x86_64__
	if (strcmp(name, "sse2") == 0) {
		json_scan = (struct json_scan){ scan_sse2, copy_plain, utf8_plain };
		return 0;
	}
	__builtin_cpu_init();
	if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") &&
	    __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi2")) {
		json_scan = (struct json_scan){ scan_avx2, copy_avx512, utf8_avx2 };
		return 0;
	}
	if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2")) {
		json_scan = (struct json_scan){ scan_avx2, copy_avx2, utf8_avx2 };
		return 0;
	}
#endif
	return -ENOTSUP;
}

__attribute__((constructor)) static void choose(void)
{
	if (json_scan_use("avx512"))
		json_scan_use("avx2");
}
