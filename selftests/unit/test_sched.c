/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/time.h"
#include "sched/sched.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void close_to(double got, double want)
{
	if (!(fabs(got - want) <= 1e-9 * fmax(1, fabs(want))))
		fail_msg("got %.12g, want %.12g", got, want);
}

/* <n> rows of idle pods with weight 1. */
static void rows_init(struct sched_row *rows, unsigned n)
{
	memset(rows, 0, n * sizeof(*rows));
	for (unsigned i = 0; i < n; i++) {
		rows[i].pod = (uint16_t)i;
		rows[i].weight = 1;
		rows[i].key = mix64(i + 1000);
		rows[i].kv_usage = rows[i].engine_running = rows[i].engine_waiting = NAN;
	}
}

static unsigned pick(const char *policy, const struct sched_in *in, struct sched_row *rows, unsigned n,
		     struct sched_state *st, struct rng *rng)
{
	struct sched_out out = { 0 };

	sched_find(str_of(policy))->pick(in, rows, n, st, rng, &out);
	return out.row[0];
}

/* The expected numbers come from a program of ten lines in another language that was written from the formula in
 * docs/scheduling.md; the first case by hand: 1000 * (1 + 500/50000) = 1010, times 0.17 ms = 0.1717 s. */
static void the_default_rule_gives_the_documents_numbers(void **state)
{
	static const struct {
		const char *what;
		uint32_t prompt;
		double pool_s, pool_t;
		struct {
			uint32_t matched, n, waiting;
			double backlog, s, t;
			uint32_t uncached;
			double work, rate, own, cost;
		} row[2];
		double a;
		unsigned best;
	} cases[] = {
		{ "an idle pool takes the pod that holds all but the last token",
		  1000,
		  0,
		  0,
		  { { 0, 0, 0, 0, 0, 0, 1000, 1010, 0.17e-3, 0.1717, 0.1717 },
		    { 1000, 0, 0, 0, 0, 0, 1, 1.01999, 0.17e-3, 0.0001733983, 0.0001733983 } },
		  0,
		  1 },
		{ "a hit is worth a short queue",
		  8000,
		  10,
		  100000,
		  { { 6400, 3, 1, 0.3, 0, 0, 1600, 1830.4, 1e-4, 0.18304, 1.14912 },
		    { 0, 1, 0, 0, 0, 0, 8000, 8640, 1e-4, 0.864, 1.8328207768355314 } },
		  0.5,
		  0 },
		{ "a hit is not worth a long queue",
		  8000,
		  10,
		  100000,
		  { { 6400, 8, 4, 3, 0, 0, 1600, 1830.4, 1e-4, 0.18304, 10.64736 },
		    { 0, 1, 0, 0, 0, 0, 8000, 8640, 1e-4, 0.864, 3.6656415536710627 } },
		  2,
		  1 },
		{ "a pod that was learned to be slow costs more",
		  4000,
		  10,
		  100000,
		  { { 0, 0, 0, 0, 40, 100000, 4000, 4160, 0.00037777777777777777, 1.5715555555555556,
		      1.5715555555555556 },
		    { 0, 0, 0, 0, 10, 100000, 4000, 4160, 1e-4, 0.416, 0.416 } },
		  0,
		  1 },
		{ "the externality ends at 4, and 20000 are not yet enough to trust the pool's rate",
		  2000,
		  0,
		  20000,
		  { { 0, 9, 9, 1, 0, 0, 2000, 2040, 0.17e-3, 0.3468, 8.645667122900349 },
		    { 0, 3, 3, 2, 0, 0, 2000, 2040, 0.17e-3, 0.3468, 7.468 } },
		  4,
		  1 },
	};

	for (size_t i = 0; i < N(cases); i++) {
		struct sched_in in = { .prompt_tokens = cases[i].prompt,
				       .pool_s = cases[i].pool_s,
				       .pool_t = cases[i].pool_t,
				       .mode = i % 2 ? SCHED_APPROXIMATE : SCHED_PRECISE };
		struct sched_row rows[2];
		struct sched_state st = { 0 };
		struct sched_out out = { 0 };
		struct rng rng = { i };

		rows_init(rows, 2);
		for (unsigned k = 0; k < 2; k++) {
			rows[k].matched = cases[i].row[k].matched;
			rows[k].n = cases[i].row[k].n;
			rows[k].waiting = cases[i].row[k].waiting;
			rows[k].backlog = cases[i].row[k].backlog;
			rows[k].s = cases[i].row[k].s;
			rows[k].t = cases[i].row[k].t;
		}
		sched_find(STR("default"))->pick(&in, rows, 2, &st, &rng, &out);
		for (unsigned k = 0; k < 2; k++) {
			assert_int_equal(rows[k].uncached, cases[i].row[k].uncached);
			close_to(rows[k].work, cases[i].row[k].work);
			close_to(rows[k].rate, cases[i].row[k].rate);
			close_to(rows[k].own, cases[i].row[k].own);
			close_to(rows[k].cost, cases[i].row[k].cost);
		}
		close_to(out.externality, cases[i].a);
		if (out.row[0] != cases[i].best)
			fail_msg("%s", cases[i].what);
		assert_int_equal(out.n, 2);
		assert_int_equal(out.row[1], 1 - out.row[0]);
	}
}

/* By hand: all of 1000 but the last token is held, which is 1.01999 token-equivalents; a token in host memory adds a
 * quarter of one, on a disk three quarters. */
static void a_hit_in_a_slower_tier_is_worth_less(void **state)
{
	static const struct {
		uint32_t matched, in_cpu, in_disk;
		double work;
	} cases[] = {
		{ 999, 0, 0, 1.01999 },	      { 999, 400, 0, 101.01999 }, { 999, 0, 400, 301.01999 },
		{ 999, 100, 800, 626.01999 }, { 0, 0, 0, 1010 },
	};
	struct sched_in in = { .prompt_tokens = 1000, .mode = SCHED_PRECISE };
	struct sched_row rows[N(cases)];
	struct sched_state st = { 0 };
	struct sched_out out = { 0 };
	struct rng rng = { 1 };

	rows_init(rows, N(cases));
	for (size_t i = 0; i < N(cases); i++) {
		rows[i].matched = cases[i].matched;
		rows[i].in_cpu = cases[i].in_cpu;
		rows[i].in_disk = cases[i].in_disk;
	}
	sched_find(STR("default"))->pick(&in, rows, N(cases), &st, &rng, &out);
	for (size_t i = 0; i < N(cases); i++) {
		close_to(rows[i].work, cases[i].work);
		assert_int_equal(rows[i].uncached, 1000 - cases[i].matched);
	}
	for (unsigned i = 0; i < out.n; i++)
		assert_int_equal(out.row[i], i);
}

/* By hand: 1 of 1000 tokens is computed behind 999, and 400 are loaded. */
static void an_operator_can_say_what_tiers_and_long_prompts_cost(void **state)
{
	static const struct {
		struct sched_tuning t;
		uint32_t in_cpu, in_disk;
		double work;
	} cases[] = {
		{ { 1, 1, 50000 }, 400, 400, 1.01999 },
		{ { 0, 0.5, 50000 }, 400, 0, 401.01999 },
		{ { 0, 0.5, 50000 }, 0, 400, 201.01999 },
		{ { 0.75, 0.25, 1000 }, 0, 0, 1.9995 },
	};
	struct sched_in in = { .prompt_tokens = 1000 };
	struct sched_row row;

	for (size_t i = 0; i < N(cases); i++) {
		rows_init(&row, 1);
		row.matched = 999;
		row.in_cpu = cases[i].in_cpu;
		row.in_disk = cases[i].in_disk;
		in.tuning = &cases[i].t;
		sched_terms(&in, &row, 1);
		close_to(row.work, cases[i].work);
	}
}

static void a_prompt_of_unknown_length_is_one_token(void **state)
{
	struct sched_in in = { 0 };
	struct sched_row row;

	rows_init(&row, 1);
	row.matched = 77;
	sched_terms(&in, &row, 1);
	assert_int_equal(row.uncached, 1);
	close_to(row.work, 1.00001);
}

/* Every policy, any rows: distinct rows, as many as there can be, one weight of them all alike. */
static void every_policy_ranks_distinct_rows(void **state)
{
	struct rng r = { 5 };

	for (const struct sched_ops *const *p = sched_all(); *p; p++) {
		struct sched_state st = { 0 };

		assert_ptr_equal(sched_find(str_of((*p)->name)), *p);
		assert_true(strlen((*p)->doc) > 0);
		for (unsigned turn = 0; turn < 500; turn++) {
			struct sched_row rows[SCHED_ROWS_MAX];
			unsigned n = 1 + (unsigned)rng_below(&r, turn % 10 ? 8 : SCHED_ROWS_MAX);
			struct sched_in in = { .prompt_tokens = (uint32_t)rng_below(&r, 100000),
					       .session = rng_below(&r, 2) ? rng_next(&r) : 0,
					       .mode = (enum sched_mode)rng_below(&r, 4) };
			struct sched_out out = { 0 };

			rows_init(rows, n);
			for (unsigned i = 0; i < n; i++) {
				rows[i].weight = (uint8_t)rng_below(&r, 101);
				rows[i].n = (uint32_t)rng_below(&r, 20);
				rows[i].waiting = (uint32_t)rng_below(&r, rows[i].n + 1);
				rows[i].matched = (uint32_t)rng_below(&r, 100000);
				rows[i].backlog = rng_below(&r, 20) ? rng_unit(&r) : NAN;
			}
			(*p)->pick(&in, rows, n, &st, &r, &out);
			assert_int_equal(out.n, n < SCHED_RANKED_MAX ? n : SCHED_RANKED_MAX);
			for (unsigned i = 0; i < out.n; i++) {
				assert_true(out.row[i] < n);
				for (unsigned k = 0; k < i; k++)
					assert_int_not_equal(out.row[i], out.row[k]);
			}
			for (unsigned i = 0; i < n; i++)
				assert_true(rows[i].own > 0);
		}
	}
	assert_null(sched_find(STR("defaul")));
}

static void the_ranking_is_by_cost(void **state)
{
	struct sched_in in = { .prompt_tokens = 100 };
	struct rng r = { 6 };

	for (unsigned turn = 0; turn < 300; turn++) {
		struct sched_row rows[30];
		struct sched_out out = { 0 };

		rows_init(rows, 30);
		for (unsigned i = 0; i < 30; i++)
			rows[i].backlog = (double)rng_below(&r, 12);
		sched_find(STR("default"))->pick(&in, rows, 30, NULL, &r, &out);
		for (unsigned i = 1; i < out.n; i++)
			assert_true(rows[out.row[i - 1]].cost <= rows[out.row[i]].cost);
		for (unsigned i = 0; i < 30; i++) {
			bool ranked = false;

			for (unsigned k = 0; k < out.n; k++)
				ranked |= out.row[k] == i;
			assert_true(ranked || rows[i].cost >= rows[out.row[out.n - 1]].cost);
		}
	}
}

/* Shares of first places over many picks on pods that stay idle. */
static void idle_pods_get_their_weights_shares(void **state)
{
	static const struct {
		const char *policy;
		enum sched_mode mode;
		uint8_t weight[4];
		double share[4];
		double within;
	} cases[] = {
		{ "default", SCHED_LOAD, { 1, 1, 1, 1 }, { .25, .25, .25, .25 }, .015 },
		{ "default", SCHED_LOAD, { 1, 2, 3, 4 }, { .1, .2, .3, .4 }, .015 },
		{ "random", SCHED_LOAD, { 1, 1, 1, 1 }, { .25, .25, .25, .25 }, .015 },
		{ "random", SCHED_LOAD, { 4, 3, 2, 1 }, { .4, .3, .2, .1 }, .015 },
		{ "round-robin", SCHED_LOAD, { 1, 1, 1, 1 }, { .25, .25, .25, .25 }, 0 },
		{ "round-robin", SCHED_LOAD, { 4, 3, 2, 1 }, { .4, .3, .2, .1 }, 0 },
		{ "round-robin", SCHED_LOAD, { 0, 1, 6, 2 }, { .1, .1, .6, .2 }, 0 },
		{ "least-request", SCHED_LOAD, { 1, 1, 1, 1 }, { .25, .25, .25, .25 }, .015 },
		{ "p2c", SCHED_LOAD, { 1, 1, 1, 1 }, { .25, .25, .25, .25 }, .015 },
		{ "session-hash", SCHED_SESSION, { 1, 1, 1, 1 }, { .25, .25, .25, .25 }, .015 },
		{ "session-hash", SCHED_SESSION, { 1, 2, 3, 4 }, { .1, .2, .3, .4 }, .015 },
		{ "default", SCHED_SESSION, { 1, 2, 3, 4 }, { .1, .2, .3, .4 }, .015 },
	};

	for (size_t c = 0; c < N(cases); c++) {
		unsigned got[4] = { 0 };
		struct sched_state st = { 0 };
		struct rng r = { c };

		for (unsigned i = 0; i < 20000; i++) {
			struct sched_in in = { .prompt_tokens = 500, .session = rng_next(&r), .mode = cases[c].mode };
			struct sched_row rows[4];

			rows_init(rows, 4);
			for (unsigned k = 0; k < 4; k++)
				rows[k].weight = cases[c].weight[k];
			got[pick(cases[c].policy, &in, rows, 4, &st, &r)]++;
		}
		for (unsigned k = 0; k < 4; k++)
			if (fabs(got[k] / 20000.0 - cases[c].share[k]) > cases[c].within)
				fail_msg("%s, case %zu: pod %u got %.3f, want %.3f", cases[c].policy, c, k,
					 got[k] / 20000.0, cases[c].share[k]);
	}
}

static void round_robin_goes_in_order_and_keeps_heavy_turns_apart(void **state)
{
	struct sched_in in = { .prompt_tokens = 10 };
	struct sched_state st = { 0 };
	struct sched_row rows[5];
	struct sched_out out = { 0 };
	unsigned run = 0, longest = 0, last = 9;

	rows_init(rows, 5);
	for (unsigned i = 0; i < 12; i++) {
		sched_find(STR("round-robin"))->pick(&in, rows, 5, &st, &(struct rng){ i }, &out);
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(out.row[k], (i + k) % 5);
	}
	rows[2].weight = 5;
	for (unsigned i = 0; i < 900; i++) {
		unsigned p = pick("round-robin", &in, rows, 5, &st, &(struct rng){ i });

		run = p == last ? run + 1 : 1;
		longest = run > longest ? run : longest;
		last = p;
	}
	assert_true(longest <= 2);
}

static void load_policies_choose_the_less_loaded(void **state)
{
	static const struct {
		const char *policy;
		uint32_t n[3];
		uint8_t weight[3];
		unsigned best;
	} cases[] = {
		{ "least-request", { 3, 2, 4 }, { 1, 1, 1 }, 1 },
		{ "least-request", { 3, 2, 4 }, { 1, 1, 2 }, 2 }, /* 4, 3, 2.5 */
		{ "least-request", { 0, 0, 0 }, { 1, 1, 2 }, 2 },
		{ "p2c", { 9, 0, 0 }, { 1, 1, 1 }, 0 }, /* never the worst of three */
	};

	for (size_t c = 0; c < N(cases); c++) {
		for (unsigned i = 0; i < 200; i++) {
			struct sched_in in = { .prompt_tokens = 10 };
			struct sched_row rows[3];
			struct rng r = { i };
			unsigned p;

			rows_init(rows, 3);
			for (unsigned k = 0; k < 3; k++) {
				rows[k].n = cases[c].n[k];
				rows[k].weight = cases[c].weight[k];
			}
			p = pick(cases[c].policy, &in, rows, 3, NULL, &r);
			if (strcmp(cases[c].policy, "p2c") == 0)
				assert_int_not_equal(p, cases[c].best);
			else
				assert_int_equal(p, cases[c].best);
		}
	}
}

static void a_heavier_pod_bears_more_requests(void **state)
{
	struct sched_in in = { .prompt_tokens = 1000, .mode = SCHED_PRECISE };
	struct sched_row rows[2];

	rows_init(rows, 2);
	rows[0].n = 4;
	rows[1].n = 8;
	rows[1].weight = 3;
	assert_int_equal(pick("default", &in, rows, 2, NULL, &(struct rng){ 1 }), 1);
	close_to(rows[0].cost, rows[0].own * sqrt(5));
	close_to(rows[1].cost, rows[1].own * sqrt(8 / 3.0 + 1));
}

static void a_session_stays_when_other_pods_come_and_go(void **state)
{
	unsigned moved = 0;

	for (uint64_t s = 1; s <= 4000; s++) {
		struct sched_in in = { .prompt_tokens = 100, .session = s, .mode = SCHED_SESSION };
		struct sched_row rows[8];
		struct sched_out all = { 0 }, fewer = { 0 };
		struct rng r = { s };
		uint16_t home;

		rows_init(rows, 8);
		sched_find(STR("session-hash"))->pick(&in, rows, 8, NULL, &r, &all);
		home = rows[all.row[0]].pod;
		/* Pod 3 leaves; the others move up a row. */
		memmove(rows + 3, rows + 4, 4 * sizeof(*rows));
		sched_find(STR("default"))->pick(&in, rows, 7, NULL, &r, &fewer);
		if (home == 3) {
			moved++;
			/* Where it goes is where a retry would have gone. */
			assert_int_equal(rows[fewer.row[0]].pod, all.row[1]);
		} else {
			assert_int_equal(rows[fewer.row[0]].pod, home);
		}
	}
	assert_in_range(moved, 400, 600);
}

static void a_full_pod_gives_way_to_the_sessions_next(void **state)
{
	static const struct {
		uint32_t home, others; /* n of the session's pod, of each other one of four */
		bool stays;
	} cases[] = {
		{ 0, 0, true },	   { 4, 0, true }, /* 5 ≤ 1.25 * 5 / 4 + 4 = 5.56 */
		{ 5, 0, false },		   /* 6 > 5.875 */
		{ 20, 20, true },		   /* all alike */
		{ 32, 20, true },		   /* 33 ≤ 1.25 * 93 / 4 + 4 = 33.06 */
		{ 33, 20, false },		   /* 34 > 33.4 */
	};

	for (size_t c = 0; c < N(cases); c++) {
		for (uint64_t s = 1; s < 50; s++) {
			struct sched_in in = { .prompt_tokens = 100, .session = s, .mode = SCHED_SESSION };
			struct sched_row rows[4];
			struct sched_out idle = { 0 }, now = { 0 };
			struct rng r = { s };

			rows_init(rows, 4);
			sched_find(STR("default"))->pick(&in, rows, 4, NULL, &r, &idle);
			for (unsigned i = 0; i < 4; i++)
				rows[i].n = i == idle.row[0] ? cases[c].home : cases[c].others;
			sched_find(STR("default"))->pick(&in, rows, 4, NULL, &r, &now);
			assert_int_equal(now.row[0], idle.row[!cases[c].stays]);
		}
	}
}

static void without_a_session_the_prompts_beginning_decides(void **state)
{
	struct sched_in in = { .prompt_tokens = 100, .prefix = 99, .mode = SCHED_SESSION };
	struct sched_row rows[4];
	struct rng r = { 3 };
	unsigned home, seen = 0;

	rows_init(rows, 4);
	home = pick("default", &in, rows, 4, NULL, &r);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(pick("default", &in, rows, 4, NULL, &r), home);
	in.prefix = 0;
	for (unsigned i = 0; i < 100; i++)
		seen |= 1U << pick("default", &in, rows, 4, NULL, &r);
	assert_int_equal(seen, 15);
}

static void the_same_stream_gives_the_same_choice(void **state)
{
	for (const struct sched_ops *const *p = sched_all(); *p; p++) {
		struct sched_in in = { .prompt_tokens = 100, .session = 7, .mode = SCHED_LOAD };
		struct sched_row rows[64];
		struct sched_out a = { 0 }, b = { 0 };
		struct sched_state s = { 3 }, t = { 3 };
		struct rng r = { 8 }, q = { 8 };

		rows_init(rows, 64);
		(*p)->pick(&in, rows, 64, &s, &r, &a);
		(*p)->pick(&in, rows, 64, &t, &q, &b);
		assert_memory_equal(&a, &b, sizeof(a));
	}
}

static void modes_have_names(void **state)
{
	assert_string_equal(sched_mode_name(SCHED_PRECISE), "precise");
	assert_string_equal(sched_mode_name(SCHED_APPROXIMATE), "approximate");
	assert_string_equal(sched_mode_name(SCHED_SESSION), "session");
	assert_string_equal(sched_mode_name(SCHED_LOAD), "load");
}

/* Not a test: with KVS_BENCH set, what a pick of 100 rows costs. */
static void bench(void)
{
	for (unsigned idle = 0; idle < 2; idle++) {
		for (const struct sched_ops *const *p = sched_all(); *p; p++) {
			struct sched_in in = { .prompt_tokens = 9000, .session = 7, .mode = SCHED_PRECISE };
			struct sched_row rows[100];
			struct sched_state st = { 0 };
			struct sched_out out = { 0 };
			struct rng r = { 8 };
			uint64_t t;

			rows_init(rows, 100);
			for (unsigned i = 0; i < 100 && !idle; i++) {
				rows[i].n = (uint32_t)rng_below(&r, 10);
				rows[i].backlog = rng_unit(&r);
			}
			t = time_mono();
			for (unsigned i = 0; i < 100000; i++)
				(*p)->pick(&in, rows, 100, &st, &r, &out);
			printf("%-13s %s %.2f us\n", (*p)->name, idle ? "idle" : "busy",
			       (double)(time_mono() - t) / 100000 / 1000);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_rule_gives_the_documents_numbers),
		cmocka_unit_test(a_hit_in_a_slower_tier_is_worth_less),
		cmocka_unit_test(an_operator_can_say_what_tiers_and_long_prompts_cost),
		cmocka_unit_test(a_prompt_of_unknown_length_is_one_token),
		cmocka_unit_test(every_policy_ranks_distinct_rows),
		cmocka_unit_test(the_ranking_is_by_cost),
		cmocka_unit_test(idle_pods_get_their_weights_shares),
		cmocka_unit_test(round_robin_goes_in_order_and_keeps_heavy_turns_apart),
		cmocka_unit_test(load_policies_choose_the_less_loaded),
		cmocka_unit_test(a_heavier_pod_bears_more_requests),
		cmocka_unit_test(a_session_stays_when_other_pods_come_and_go),
		cmocka_unit_test(a_full_pod_gives_way_to_the_sessions_next),
		cmocka_unit_test(without_a_session_the_prompts_beginning_decides),
		cmocka_unit_test(the_same_stream_gives_the_same_choice),
		cmocka_unit_test(modes_have_names),
	};

	if (getenv("KVS_BENCH"))
		bench();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
