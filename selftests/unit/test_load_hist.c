/* SPDX-License-Identifier: Apache-2.0
 * kvload's histogram. The tool's source is compiled in: it is no part of the library.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rand.h"

#include "../../tools/load/hist.c"

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void a_bucket_holds_what_it_says(void **state)
{
	static const uint64_t values[] = {
		0, 1, 127, 128, 129, 255, 256, 257, 511, 1000, 123456789, UINT64_C(1) << 47
	};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		unsigned at = place(values[i]);

		assert_true(end_of(at) >= values[i]);
		assert_true(at == 0 || end_of(at - 1) < values[i]);
	}
}

static void buckets_follow_each_other_without_a_gap(void **state)
{
	for (unsigned i = 1; i <= LAST; i++) {
		assert_int_equal(place(end_of(i)), i);
		assert_int_equal(place(end_of(i - 1) + 1), i);
	}
}

static void quantiles_are_within_a_hundredth_of_the_sorted_values(void **state)
{
	static const double shares[] = { 0, 0.01, 0.5, 0.9, 0.99, 0.999, 1 };
	static uint64_t v[20000];
	struct lhist *h = calloc(1, sizeof(*h));
	struct rng r = { 7 };

	for (size_t i = 0; i < 20000; i++) {
		v[i] = rng_next(&r) >> (24 + rng_below(&r, 30));
		lhist_add(h, v[i]);
	}
	qsort(v, 20000, sizeof(v[0]), by_value);
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		size_t at = (size_t)ceil(shares[i] * 20000);
		uint64_t want = v[at ? at - 1 : 0], got = lhist_quantile(h, shares[i]);

		assert_true(got >= want);
		assert_true((double)got <= (double)want * 1.01 + 1);
	}
	assert_int_equal(lhist_quantile(h, 1), v[19999]);
	free(h);
}

static void halves_merged_are_the_whole(void **state)
{
	struct lhist *a = calloc(3, sizeof(*a)), *b = a + 1, *both = a + 2;
	struct rng r = { 9 };

	for (int i = 0; i < 1000; i++) {
		uint64_t v = rng_below(&r, 1000000);

		lhist_add(i & 1 ? a : b, v);
		lhist_add(both, v);
	}
	lhist_merge(a, b);
	assert_memory_equal(a, both, sizeof(*a));
	free(a);
}

static void what_is_too_long_counts_as_the_longest(void **state)
{
	struct lhist *h = calloc(1, sizeof(*h));

	assert_int_equal(lhist_quantile(h, 0.5), 0);
	lhist_add(h, UINT64_MAX);
	lhist_add(h, 5);
	assert_int_equal(lhist_quantile(h, 0.5), 5);
	assert_true(lhist_quantile(h, 1) == UINT64_MAX);
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bucket_holds_what_it_says),
		cmocka_unit_test(buckets_follow_each_other_without_a_gap),
		cmocka_unit_test(quantiles_are_within_a_hundredth_of_the_sorted_values),
		cmocka_unit_test(halves_merged_are_the_whole),
		cmocka_unit_test(what_is_too_long_counts_as_the_longest),
	};

	return cmocka_run_group_tests_name("kvload histogram", tests, NULL, NULL);
}
