/* SPDX-License-Identifier: Apache-2.0
 * The key table by itself: what look-ups take for granted and cannot check on their way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kvindex/kvindex_int.h"

#define KEYS   (1u << 18)
#define PROBES (1u << 23)

static struct qsbr qsbr;
static struct kvindex *x;

static int setup(void **state)
{
	(void)state;
	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, (size_t)256 << 20, 1);
	return x ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	index_free(x);
	return 0;
}

static const struct table *table(void)
{
	return atomic_load(&x->table);
}

static unsigned ids_under(uint64_t key, uint32_t *ret_first)
{
	uint64_t at = table_home(table(), key);
	unsigned n = 0;

	for (uint32_t id; (id = table_next(table(), key, &at)); n++)
		if (!n && ret_first)
			*ret_first = id;
	return n;
}

/* What a holder has is bisected: one probe that finds a stranger sends the search to where the holder has nothing. */
static void a_key_that_is_not_there_finds_nothing(void **state)
{
	struct rng rng = { 1 };

	(void)state;
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(table_add(x, rng_next(&rng), 1), 0);
	for (unsigned i = 0; i < PROBES; i++)
		assert_int_equal(ids_under(rng_next(&rng), NULL), 0);
}

static void keys_are_found_again_through_growth_and_loss(void **state)
{
	const unsigned n = 20000;
	uint32_t id = 0;

	(void)state;
	for (unsigned i = 1; i <= n; i++) {
		assert_int_equal(table_add(x, mix64(i), i), 0);
		if (i % 3 == 0)
			assert_int_equal(table_add(x, mix64(i), i), 0);
	}
	for (unsigned i = 2; i <= n; i += 2)
		table_del(x, mix64(i), i);
	assert_int_equal(table_resize(x), 0);
	for (unsigned i = 1; i <= n; i++) {
		assert_int_equal(ids_under(mix64(i), &id), i % 2 || i % 3 == 0);
		if (i % 2 || i % 3 == 0)
			assert_int_equal(id, i);
	}
	for (unsigned i = 1; i <= n; i++)
		for (unsigned k = 0; k < 1 + (i % 3 == 0); k++)
			table_del(x, mix64(i), i);
	assert_int_equal(table()->live, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_key_that_is_not_there_finds_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(keys_are_found_again_through_growth_and_loss, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
