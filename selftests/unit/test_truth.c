/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "truth/truth.h"

#define BLOCK 16

static const struct truth_rule rule = { .drift = 0.25, .samples = 8 };
static const struct truth_facts plain = { .block = 16, .event_block = 16, .replay = true };

struct scene {
	struct truth *t;
	struct truth_row *row;
	struct truth_facts facts;
};

static struct scene begin(void)
{
	struct scene s = { .t = truth_new(), .facts = plain };

	s.row = truth_add(s.t, 7, truth_model("m"), "m");
	return s;
}

static void feed(struct scene *s, enum truth_kind kind, unsigned n, uint32_t predicted, uint32_t reported)
{
	for (unsigned i = 0; i < n; i++) {
		struct truth_sample a = { .model = s->row->model,
					  .pod = 7,
					  .predicted = predicted,
					  .reported = reported,
					  .prompt = reported + 160,
					  .block = BLOCK,
					  .kind = kind };

		truth_feed(s->row, &a, 1);
		s->facts.told += 9;
	}
}

static enum truth_verdict judge(struct scene *s, enum truth_kind kind)
{
	truth_told(s->row, s->facts.told);
	return truth_judge(s->row, kind, &rule, &s->facts);
}

static struct truth_view look(struct scene *s, enum truth_kind kind)
{
	struct truth_view v;

	truth_look(s->row, kind, &v);
	return v;
}

static void a_block_more_or_less_is_no_mistake(void **state)
{
	struct scene s = begin();

	feed(&s, TRUTH_COMPLETIONS, 20, 160, 176);
	feed(&s, TRUTH_COMPLETIONS, 20, 176, 160);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_SAME);
	assert_int_equal(look(&s, TRUTH_COMPLETIONS).off, 0);
	feed(&s, TRUTH_COMPLETIONS, 40, 177, 160);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_FELL);
	truth_free(s.t);
}

static void answers_without_cached_tokens_do_not_count(void **state)
{
	struct scene s = begin();

	feed(&s, TRUTH_COMPLETIONS, 100, 0, 0);
	assert_int_equal(look(&s, TRUTH_COMPLETIONS).compared, 0);
	feed(&s, TRUTH_COMPLETIONS, 8, 320, 0);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_FELL);
	truth_free(s.t);
}

static void it_takes_some_answers_and_a_share_of_them(void **state)
{
	struct scene s = begin();

	feed(&s, TRUTH_COMPLETIONS, 7, 320, 0);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_SAME);
	feed(&s, TRUTH_COMPLETIONS, 57, 320, 320);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_SAME);
	feed(&s, TRUTH_COMPLETIONS, 16, 320, 0); /* 16 of the last 64 are just a quarter */
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_SAME);
	feed(&s, TRUTH_COMPLETIONS, 1, 320, 0);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_FELL);
	assert_true(look(&s, TRUTH_COMPLETIONS).doubted);
	assert_false(look(&s, TRUTH_CHATS).doubted);
	truth_free(s.t);
}

static void trust_comes_back_with_fewer_mistakes_than_it_went(void **state)
{
	struct scene s = begin();

	feed(&s, TRUTH_CHATS, 8, 320, 0);
	assert_int_equal(judge(&s, TRUTH_CHATS), TRUTH_FELL);
	for (unsigned i = 0; i < 5; i++) { /* two of eight are not little enough */
		feed(&s, TRUTH_CHATS, 6, 320, 320);
		feed(&s, TRUTH_CHATS, 2, 320, 0);
		assert_int_not_equal(judge(&s, TRUTH_CHATS), TRUTH_ROSE);
		assert_true(look(&s, TRUTH_CHATS).doubted);
	}
	feed(&s, TRUTH_CHATS, 7, 320, 320);
	assert_int_equal(judge(&s, TRUTH_CHATS), TRUTH_ROSE);
	assert_int_equal(look(&s, TRUTH_CHATS).n, 0);
	assert_true(look(&s, TRUTH_CHATS).scale == 1);
	feed(&s, TRUTH_CHATS, 7, 320, 0);
	assert_int_equal(judge(&s, TRUTH_CHATS), TRUTH_SAME);
	truth_free(s.t);
}

static void what_is_told_is_scaled_by_what_it_was_worth(void **state)
{
	struct scene s = begin();

	feed(&s, TRUTH_COMPLETIONS, 10, 1000, 250);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_FELL);
	assert_true(look(&s, TRUTH_COMPLETIONS).scale == 0.25f);
	feed(&s, TRUTH_COMPLETIONS, 8, 1000, 500);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_OTHER_SCALE);
	assert_true(look(&s, TRUTH_COMPLETIONS).scale == 0.5f);
	feed(&s, TRUTH_COMPLETIONS, 8, 500, 1000); /* more than was told: what was told holds */
	judge(&s, TRUTH_COMPLETIONS);
	assert_true(look(&s, TRUTH_COMPLETIONS).scale == 1);
	truth_free(s.t);
}

/* The answers of one kind, and of the other, and which cause they show. */
static void each_pattern_has_its_cause(void **state)
{
	enum { N = 16 };
	static const struct {
		const char *what;
		enum truth_kind kind;
		struct {
			uint32_t predicted, reported;
		} v[N], other[N];
		uint32_t event_block;
		bool silent, hybrid, no_encoder, no_replay;
		enum truth_cause cause;
	} rows[] = {
#define ALL(p, r)                                                                     \
	{                                                                             \
		{ p, r }, { p, r }, { p, r }, { p, r }, { p, r }, { p, r }, { p, r }, \
		{                                                                     \
			p, r                                                          \
		}                                                                     \
	}
#define MIX(a, b, c, d)                                                                             \
	{                                                                                           \
		{ 400, a }, { 800, b }, { 400, c }, { 800, d }, { 400, a }, { 800, b }, { 400, c }, \
		{                                                                                   \
			800, d                                                                      \
		}                                                                                   \
	}
#define MORE(a, b, c, d) \
	{ { a, 400 }, { b, 800 }, { c, 400 }, { d, 800 }, { a, 400 }, { b, 800 }, { c, 400 }, { d, 800 } }
		{ "nothing is hit", 0, ALL(640, 0), ALL(0, 0), .cause = TRUTH_SALT },
		{ "half of it is hit", 0, MIX(200, 400, 200, 400), ALL(0, 0), .cause = TRUTH_BLOCK_SIZE },
		{ "twice of it", 0, MORE(200, 400, 200, 400), ALL(0, 0), .cause = TRUTH_BLOCK_SIZE },
		{ "some of it is hit", 0, MIX(0, 700, 100, 50), ALL(0, 0), .cause = TRUTH_EVENTS },
		{ "some of it, of chats alone", 1, MIX(0, 700, 100, 50), ALL(640, 640), .cause = TRUTH_ENGINE },
		{ "of several cache groups", 0, MIX(0, 700, 100, 50), ALL(0, 0), .hybrid = true,
		  .cause = TRUTH_HYBRID },
		{ "of generated text", 1, MIX(16, 700, 100, 50), ALL(640, 640), .no_encoder = true,
		  .cause = TRUTH_GENERATED },
		{ "chats are never found", 1, ALL(0, 640), ALL(640, 640), .cause = TRUTH_TEMPLATE },
		{ "and nothing else was asked for", 1, ALL(0, 640), ALL(0, 0), .cause = TRUTH_TEMPLATE },
		{ "nothing is ever found", 1, ALL(0, 640), ALL(0, 640), .cause = TRUTH_TOKENIZER },
		{ "no completion is", 0, ALL(0, 640), ALL(0, 0), .cause = TRUTH_TOKENIZER },
		{ "too little of chats is found", 1, MORE(64, 700, 300, 100), ALL(640, 640), .cause = TRUTH_ENGINE },
		{ "too little is found", 0, MORE(64, 700, 300, 100), ALL(0, 0), .cause = TRUTH_EVENTS },
		{ "some is found, some not", 0, MORE(0, 800, 0, 800), ALL(0, 0), .cause = TRUTH_EVENTS },
		{ "nothing is told", 0, ALL(0, 640), ALL(0, 0), .silent = true, .cause = TRUTH_EVENTS },
		{ "we came late", 0, ALL(0, 640), ALL(0, 0), .no_replay = true, .cause = TRUTH_EVENTS },
		{ "blocks differ", 0, MORE(64, 700, 300, 100), ALL(0, 0), .event_block = 8, .cause = TRUTH_BLOCK_SIZE },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct scene s = begin();
		enum truth_kind other = rows[i].kind ? TRUTH_COMPLETIONS : TRUTH_CHATS;

		s.facts.hybrid = rows[i].hybrid;
		s.facts.no_encoder = rows[i].no_encoder;
		s.facts.replay = !rows[i].no_replay;
		if (rows[i].event_block)
			s.facts.event_block = rows[i].event_block;
		for (unsigned k = 0; k < N; k++) {
			feed(&s, other, 1, rows[i].other[k].predicted, rows[i].other[k].reported);
			feed(&s, rows[i].kind, 1, rows[i].v[k].predicted, rows[i].v[k].reported);
		}
		if (rows[i].silent)
			s.facts.told = 0;
		judge(&s, other);
		if (judge(&s, rows[i].kind) != TRUTH_FELL || look(&s, rows[i].kind).cause != rows[i].cause)
			fail_msg("%s: %s, not %s", rows[i].what, truth_cause_name(look(&s, rows[i].kind).cause),
				 truth_cause_name(rows[i].cause));
		truth_free(s.t);
	}
}

static void a_cause_is_found_anew_while_it_lasts(void **state)
{
	struct scene s = begin();

	feed(&s, TRUTH_COMPLETIONS, 16, 640, 0);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_FELL);
	feed(&s, TRUTH_COMPLETIONS, 16, 0, 640);
	assert_int_equal(judge(&s, TRUTH_COMPLETIONS), TRUTH_OTHER_CAUSE);
	assert_int_equal(look(&s, TRUTH_COMPLETIONS).cause, TRUTH_TOKENIZER);
	assert_int_equal(s.row->w[TRUTH_COMPLETIONS].fell.off, 16);
	truth_free(s.t);
}

static void every_cause_says_what_and_what_to_do(void **state)
{
	for (unsigned c = 0; c < TRUTH_CAUSES; c++) {
		assert_true(strlen(truth_cause_name(c)) > 0 && strlen(truth_cause_text(c)) > 10);
		assert_true(c == TRUTH_FINE || strlen(truth_cause_fix(c)) > 10);
	}
}

static void rows_are_found_by_pod_and_model_and_bounded(void **state)
{
	struct truth *t = truth_new();
	struct truth_sample a = { .predicted = 100, .reported = 100, .block = BLOCK };
	unsigned n = 0;

	for (uint32_t i = 0; i < TRUTH_ROWS_MAX + 10; i++)
		truth_feed(truth_add(t, i % 300, i, "x"), &a, i + 1);
	list_for_each (it, truth_rows(t))
		n++;
	assert_int_equal(n, TRUTH_ROWS_MAX);
	assert_null(truth_find(t, 9, 9)); /* the one that was fed longest ago */
	assert_non_null(truth_find(t, 10, 10));
	assert_null(truth_find(t, 11, 10));
	truth_forget(t, 10);
	assert_null(truth_find(t, 10, 10));
	assert_non_null(truth_find(t, 11, 11));
	truth_free(t);
	truth_free(NULL);
}

static void a_full_ring_says_so(void **state)
{
	struct truth_ring *r = aligned_alloc(64, sizeof(*r));
	struct truth_sample a = { .kind = 1 }, b;

	memset(r, 0, sizeof(*r));
	assert_false(truth_take(r, 1, &b));
	for (unsigned round = 0; round < 3; round++) {
		for (a.pod = 0; a.pod < TRUTH_RING; a.pod++)
			assert_true(truth_put(r, &a));
		assert_false(truth_put(r, &a));
		for (unsigned i = 0; i < TRUTH_RING; i++) {
			assert_true(truth_take(r, 1, &b));
			assert_int_equal(b.pod, i);
		}
		assert_false(truth_take(r, 1, &b));
	}
	free(r);
}

static void of_several_rings_the_oldest_answer_comes_first(void **state)
{
	static const uint64_t at[3][3] = { { 3, 4, 9 }, { 1, 5, 6 }, { 2, 7, 8 } };
	struct truth_ring *r = aligned_alloc(64, 3 * sizeof(*r));
	struct truth_sample b;

	memset(r, 0, 3 * sizeof(*r));
	for (unsigned i = 0; i < 9; i++)
		assert_true(truth_put(&r[i / 3], &(struct truth_sample){ .at_ns = at[i / 3][i % 3] }));
	for (unsigned i = 1; i <= 9; i++) {
		assert_true(truth_take(r, 3, &b));
		assert_int_equal(b.at_ns, i);
	}
	assert_false(truth_take(r, 3, &b));
	free(r);
}

static void *writer(void *arg)
{
	struct truth_sample a = { .kind = 0 };

	for (uint32_t i = 1; i <= 100000;) {
		a.pod = a.predicted = a.reported = i;
		i += truth_put(arg, &a);
	}
	return NULL;
}

static void a_ring_between_two_threads_loses_nothing(void **state)
{
	struct truth_ring *r = aligned_alloc(64, sizeof(*r));
	struct truth_sample b;
	uint32_t next = 1;
	pthread_t t;

	memset(r, 0, sizeof(*r));
	assert_int_equal(pthread_create(&t, NULL, writer, r), 0);
	while (next <= 100000)
		if (truth_take(r, 1, &b)) {
			assert_int_equal(b.pod, next);
			assert_int_equal(b.reported, next);
			next++;
		}
	pthread_join(t, NULL);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_more_or_less_is_no_mistake),
		cmocka_unit_test(answers_without_cached_tokens_do_not_count),
		cmocka_unit_test(it_takes_some_answers_and_a_share_of_them),
		cmocka_unit_test(trust_comes_back_with_fewer_mistakes_than_it_went),
		cmocka_unit_test(what_is_told_is_scaled_by_what_it_was_worth),
		cmocka_unit_test(each_pattern_has_its_cause),
		cmocka_unit_test(a_cause_is_found_anew_while_it_lasts),
		cmocka_unit_test(every_cause_says_what_and_what_to_do),
		cmocka_unit_test(rows_are_found_by_pod_and_model_and_bounded),
		cmocka_unit_test(a_full_ring_says_so),
		cmocka_unit_test(of_several_rings_the_oldest_answer_comes_first),
		cmocka_unit_test(a_ring_between_two_threads_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
