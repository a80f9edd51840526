/* SPDX-License-Identifier: Apache-2.0
 * Pods that lie, or are mistaken: what they say counts for themselves at most, and never for another tenant.
 */
#include "events_scene.h"

/* A second engine and its pod, with holder 4. */
struct other {
	struct engine g;
	struct pod *p;
};

static void other_begin(struct scene *c, struct other *o)
{
	struct pod_spec spec = { .weight = 1, .ranks = 1 };
	struct pod *first = c->p;

	memset(o, 0, sizeof(*o));
	engine_start(&o->g, false);
	net_addr_parse(STR("127.0.0.1:8001"), &spec.addr);
	snprintf(spec.events, sizeof(spec.events), "tcp://127.0.0.1:%u", o->g.pub_port);
	assert_int_equal(endpoints_set(c->table, 0, "other", &spec, 1), 1);
	o->p = c->p;
	c->p = first;
	o->p->holder[0] = 4;
	assert_int_equal(events_add(c->e, o->p, c->v, BASE), 0);
	engine_subscribed(&o->g);
}

static void other_end(struct scene *c, struct other *o)
{
	events_remove(c->e, o->p);
	end(c);
	engine_stop(&o->g);
}

static void other_sends(struct other *o, uint64_t seq, struct buf b)
{
	publish(&o->g, seq, &b);
	buf_free(&b);
}

static uint64_t blocks_of(struct scene *c, unsigned holder)
{
	uint64_t blocks, guesses;

	index_holder_stats(c->x, holder, &blocks, &guesses);
	return blocks;
}

static void another_pod_s_blocks_are_nobody_s_parents(void **state)
{
	struct scene c;
	struct other o;

	begin(&c, false);
	other_begin(&c, &o);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	other_sends(&o, 0, stored(11, 20, TEXT_B, BLOCK, NULL)); /* 11 is the first pod's */
	until(stat(&c, STATS_EVENT_ORPHAN) == 1);
	assert_int_equal(blocks_of(&c, 4), 0);
	/* Nor does it take them out. */
	other_sends(&o, 1, removed(11));
	other_sends(&o, 2, cleared());
	until(stat(&c, STATS_EVENT_CLEARED) == 1);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	other_end(&c, &o);
}

static void equal_hashes_of_two_pods_are_two_blocks(void **state)
{
	struct scene c;
	struct other o;

	begin(&c, false);
	other_begin(&c, &o);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	other_sends(&o, 0, stored(0, 10, TEXT_B, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_STORED) == 2);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	assert_int_equal(predicted(&c, TEXT_B "x"), 0);
	assert_int_equal(blocks_of(&c, 4), 2);
	other_end(&c, &o);
}

static void one_hash_for_two_texts_is_the_later_one(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A TEXT_C, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_C "x") == 64);
	send_seq(&c, 1, stored(0, 10, TEXT_B, BLOCK, NULL)); /* 10 and 11 again; 12 and 13 hang on what is gone */
	until(predicted(&c, TEXT_B "x") == 32);
	assert_int_equal(predicted(&c, TEXT_A TEXT_C "x"), 0);
	assert_int_equal(predicted(&c, TEXT_B TEXT_C "x"), 32);
	end(&c);
}

static void a_block_that_is_its_own_ancestor_is_none(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(10, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored(0, 20, TEXT_B, BLOCK, NULL));
	send_seq(&c, 2, stored(21, 20, TEXT_A, BLOCK, NULL)); /* 20 moves behind 21, which hangs on it */
	send_seq(&c, 3, stored(0, 30, TEXT_C, BLOCK, NULL));
	until(predicted(&c, TEXT_C "x") == 32);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	assert_int_equal(predicted(&c, TEXT_B TEXT_A "x"), 0);
	end(&c);
}

/* [tag, hashes, parent, tokens, block size] with <tokens> tokens for <n> blocks of <size>. */
static struct buf odd(unsigned n, unsigned tokens, unsigned size)
{
	struct buf b = { 0 };
	uint8_t x[3] = { 0xdc };

	mp_head(&b, 1);
	buf_put(&b, "\x95", 1);
	mp_str(&b, "BlockStored");
	x[1] = 0;
	x[2] = (uint8_t)n;
	buf_put(&b, x, 3);
	for (unsigned i = 0; i < n; i++)
		mp_u64(&b, 50 + i);
	buf_put(&b, "\xc0", 1);
	x[1] = (uint8_t)(tokens >> 8);
	x[2] = (uint8_t)tokens;
	buf_put(&b, x, 3);
	for (unsigned i = 0; i < tokens; i++)
		mp_u64(&b, (uint8_t)TEXT_A[i % 32]);
	mp_u64(&b, size);
	buf_put(&b, "\x00", 1); /* the batch's rank */
	return b;
}

static void a_block_size_that_its_tokens_deny_is_refused(void **state)
{
	static const unsigned lies[][3] = { { 2, 32, 8 },  { 2, 32, 32 }, { 1, 32, 16 },
					    { 3, 32, 16 }, { 2, 31, 16 }, { 2, 32, 0 } };
	struct scene c;

	begin(&c, false);
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
		send_seq(&c, i, odd(lies[i][0], lies[i][1], lies[i][2]));
	send_seq(&c, 6, odd(2, 32, 16));
	until(predicted(&c, TEXT_A "x") == 32);
	assert_int_equal(blocks_of(&c, 3), 2);
	assert_in_range(stat(&c, STATS_EVENT_BAD) + stat(&c, STATS_EVENT_STORED), 6, 7);
	end(&c);
}

static void what_hangs_on_a_tenant_s_block_is_that_tenant_s(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, "red"));
	/* Without salt, with another's, with an adapter's name: it lies behind red's block all the same. */
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL));
	send_seq(&c, 2,
		 stored_as(&(struct what){ .parent = 11, .hash = 40, .text = TEXT_D, .block = BLOCK, .lora = "sql" }));
	until(stat(&c, STATS_EVENT_STORED) == 3);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", "red"), 64);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", NULL), 0);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", "blue"), 0);
	assert_int_equal(predicted_of(&c, "sql", TEXT_A TEXT_D "x", NULL), 0);
	assert_int_equal(predicted_of(&c, "sql", TEXT_D "x", NULL), 0);
	/* The same hashes for everybody: from now on they are nobody's in particular, and red has them no longer. */
	send_seq(&c, 3, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted_in(&c, TEXT_A "x", NULL) == 32);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", "red"), 0);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", NULL), 32);
	end(&c);
}

/* Parts of a namespace are told apart by their lengths, not by what is between them. */
static void names_and_salts_do_not_run_into_each_other(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0,
		 stored_as(&(struct what){ .hash = 10, .text = TEXT_A, .block = BLOCK, .lora = "ab", .salt = "c" }));
	until(predicted_of(&c, "ab", TEXT_A "x", "c") == 32);
	assert_int_equal(predicted_of(&c, "a", TEXT_A "x", "bc"), 0);
	assert_int_equal(predicted_of(&c, "abc", TEXT_A "x", NULL), 0);
	assert_int_equal(predicted_of(&c, "abc", TEXT_A "x", ""), 0);
	assert_int_equal(predicted_of(&c, BASE, TEXT_A "x", "c"), 0);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_pod_s_blocks_are_nobody_s_parents),
		cmocka_unit_test(equal_hashes_of_two_pods_are_two_blocks),
		cmocka_unit_test(one_hash_for_two_texts_is_the_later_one),
		cmocka_unit_test(a_block_that_is_its_own_ancestor_is_none),
		cmocka_unit_test(a_block_size_that_its_tokens_deny_is_refused),
		cmocka_unit_test(what_hangs_on_a_tenant_s_block_is_that_tenant_s),
		cmocka_unit_test(names_and_salts_do_not_run_into_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
