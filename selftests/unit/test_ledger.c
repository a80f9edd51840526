/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base/time.h"
#include "endpoint/endpoint.h"

#define MS NS_PER_MS

static struct qsbr qsbr;

static struct pod_spec spec_of(const char *addr)
{
	struct pod_spec s = { .weight = 1, .ranks = 1 };

	assert_int_equal(net_addr_parse(str_of(addr), &s.addr), 0);
	return s;
}

static struct endpoints *table(const char *addr)
{
	struct pod_spec s = spec_of(addr);
	struct endpoints *e;

	qsbr_init(&qsbr, 1);
	e = endpoints_new(&qsbr);
	assert_non_null(e);
	assert_int_equal(endpoints_set(e, 0, "test", &s, 1), 1);
	return e;
}

static struct pod *pod_of(struct endpoints *e)
{
	return container_of(endpoints_pods(e)->next, struct pod, link);
}

static void close_to(double got, double want)
{
	if (!(fabs(got - want) < 1e-9))
		fail_msg("got %.12g, want %.12g", got, want);
}

static uint32_t n_of(struct pod *p)
{
	struct ledger_view v;

	ledger_read(p, 0, &v);
	assert_true(v.backlog >= 0);
	return v.n;
}

/* Field case H2. */
static void a_request_ends_on_the_pod_that_it_was_charged_to(void **state)
{
	static const struct {
		bool ends_while_away, fails;
	} stories[] = { { false, false }, { true, false }, { false, true }, { true, true } };

	for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
		struct endpoints *e = table("10.0.0.1:8000");
		struct pod_spec s = spec_of("10.0.0.1:8000");
		struct charge a = { 0 }, b = { 0 };
		struct pod *old = pod_ref(pod_of(e)), *now;

		ledger_charge(old, &a, 0.5, 1000, 1000, 1 * MS);
		assert_int_equal(n_of(old), 1);

		assert_int_equal(endpoints_set(e, 0, "test", NULL, 0), 1);
		endpoints_publish(e);
		assert_true(list_empty(endpoints_pods(e)));
		assert_true(old->down & POD_DOWN_REMOVED);
		if (stories[i].ends_while_away)
			ledger_release(&a, stories[i].fails, 2 * MS);

		assert_int_equal(endpoints_set(e, 0, "test", &s, 1), 1);
		endpoints_publish(e);
		now = pod_of(e);
		assert_ptr_not_equal(now, old);
		assert_string_equal(now->name, old->name);
		assert_int_equal(old->generation, 1);
		assert_int_equal(now->generation, 2);
		assert_int_not_equal(now->id, old->id);
		assert_int_equal(n_of(now), 0);

		ledger_charge(now, &b, 0.5, 1000, 1000, 3 * MS);
		assert_int_equal(n_of(now), 1);

		ledger_release(&a, stories[i].fails, 4 * MS); /* the second time in half of the stories */
		assert_int_equal(n_of(now), 1);
		assert_int_equal(n_of(old), 0);
		assert_int_equal(old->ledger.failed, stories[i].fails);
		assert_int_equal(old->ledger.total, 1);

		ledger_release(&b, false, 5 * MS);
		assert_int_equal(n_of(now), 0);
		assert_int_equal(now->ledger.total, 1);
		assert_int_equal(now->ledger.failed, 0);
		pod_unref(old);
		endpoints_free(e);
	}
}

/* Three requests of 1, 2 and 4 s, sent at 0, 0.1 and 0.2 s. */
static void only_the_head_of_the_queue_makes_progress(void **state)
{
	static const struct {
		uint64_t at_ms;
		unsigned first; /* this one's first token comes now; 9: nothing */
		unsigned gone;	/* this one ends now; 9: nothing */
		uint32_t n, waiting;
		double backlog;
	} steps[] = {
		{ 200, 9, 9, 3, 3, 6.8 },   /* 7 - 0.2 */
		{ 500, 9, 9, 3, 3, 6.5 },   /* 7 - 0.5 */
		{ 3000, 9, 9, 3, 3, 6.05 }, /* 7 - 0.95 */
		{ 4000, 0, 9, 3, 2, 6.0 },  /* the second begins now, not at 0.1 s */
		{ 4500, 9, 9, 3, 2, 5.5 },  /* 6 - 0.5 */
		{ 4600, 9, 0, 2, 2, 5.4 },  /* an end after the first token takes no seconds */
		{ 5000, 9, 1, 1, 1, 3.0 },  /* cancelled: 4 - 1 since the last first token */
		{ 9000, 9, 9, 1, 1, 0.2 },  /* 4 - 3.8 */
		{ 90000, 9, 9, 1, 1, 0.2 }, /* never done before it is */
		{ 90000, 2, 9, 1, 0, 0.0 }, { 90001, 2, 9, 1, 0, 0.0 }, /* only the first body byte counts */
		{ 90002, 9, 2, 0, 0, 0.0 },
	};
	struct endpoints *e = table("10.0.0.1:8000");
	struct pod *p = pod_of(e);
	struct charge c[3] = { 0 };

	for (unsigned i = 0; i < 3; i++)
		ledger_charge(p, &c[i], 1 << i, 6000 << i, 5000, i * 100 * MS);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct ledger_view v;

		if (steps[i].first != 9)
			ledger_first(&c[steps[i].first], steps[i].at_ms * MS);
		if (steps[i].gone != 9)
			ledger_release(&c[steps[i].gone], false, steps[i].at_ms * MS);
		ledger_read(p, steps[i].at_ms * MS, &v);
		assert_int_equal(v.n, steps[i].n);
		assert_int_equal(v.waiting, steps[i].waiting);
		close_to(v.backlog, steps[i].backlog);
	}
	endpoints_free(e);
}

static void a_pod_and_its_pool_learn_the_rate(void **state)
{
	struct pod_spec two[] = { spec_of("10.0.0.1:8000"), spec_of("10.0.0.2:8000") };
	struct endpoints *e = table("10.0.0.1:8000");
	struct pod *p = pod_of(e), *q;
	struct charge a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
	struct ledger_view v;
	double s, t;

	endpoints_set(e, 0, "test", two, 2);
	q = endpoints_find(e, STR("10.0.0.2:8000"));

	ledger_charge(p, &a, 1, 5000, 4000, 0);
	ledger_charge(p, &b, 1, 7000, 4000, 100 * MS);
	ledger_first(&a, 1000 * MS); /* 1 s for 5000 */
	ledger_first(&b, 1500 * MS); /* 0.5 s, since the first token of <a>, for 7000 */
	ledger_read(p, 1500 * MS, &v);
	close_to(v.s, 1 * 0.98 + 0.5);
	close_to(v.t, 5000 * 0.98 + 7000);

	ledger_charge(p, &c, 1, 300, 256, 2000 * MS); /* too short to tell */
	ledger_first(&c, 3000 * MS);
	ledger_charge(p, &d, 1, 300, 257, 3000 * MS); /* no time passed */
	ledger_first(&d, 3000 * MS);
	ledger_read(p, 3000 * MS, &v);
	close_to(v.s, 1 * 0.98 + 0.5);
	ledger_release(&d, false, 3000 * MS);

	ledger_charge(q, &d, 1, 9000, 5000, 3000 * MS);
	ledger_first(&d, 6000 * MS);
	ledger_read(q, 6000 * MS, &v);
	close_to(v.s, 3);
	close_to(v.t, 9000);
	ledger_read_pool(p, &s, &t);
	close_to(s, (1 * 0.995 + 0.5) * 0.995 + 3);
	close_to(t, (5000 * 0.995 + 7000) * 0.995 + 9000);
	assert_int_equal(p->ledger.first_tokens, 4);

	ledger_release(&a, false, 0);
	ledger_release(&b, false, 0);
	ledger_release(&c, false, 0);
	ledger_release(&d, false, 0);
	endpoints_free(e);
}

static void an_end_without_a_first_token_teaches_nothing(void **state)
{
	struct endpoints *e = table("10.0.0.1:8000");
	struct pod *p = pod_of(e);
	struct charge a = { 0 };
	struct ledger_view v;

	ledger_charge(p, &a, 1, 5000, 4000, 0);
	ledger_release(&a, false, 60 * NS_PER_S);
	ledger_read(p, 60 * NS_PER_S, &v);
	close_to(v.s, 0);
	close_to(v.t, 0);
	close_to(v.backlog, 0);
	ledger_release(&(struct charge){ 0 }, true, 0); /* never charged */
	assert_int_equal(p->ledger.failed, 0);
	endpoints_free(e);
}

/* Any order of events leaves nothing behind. */
static void rounding_does_not_stay_in_the_backlog(void **state)
{
	struct endpoints *e = table("10.0.0.1:8000");
	struct pod *p = pod_of(e);
	struct charge c[20] = { 0 };
	struct rng r = { 9 };
	struct ledger_view v;
	uint32_t n = 0, waiting = 0;
	uint64_t now = 0;

	for (unsigned step = 0; step < 50000; step++) {
		struct charge *it = &c[rng_below(&r, 20)];

		now += rng_below(&r, 50 * MS);
		if (!it->pod) {
			ledger_charge(p, it, rng_unit(&r) * 3, 1000, 1000, now);
			n++;
			waiting++;
		} else if (rng_below(&r, 2)) {
			waiting -= !it->first;
			ledger_first(it, now);
		} else {
			waiting -= !it->first;
			n--;
			ledger_release(it, rng_below(&r, 2), now);
		}
		ledger_read(p, now, &v);
		assert_int_equal(v.n, n);
		assert_int_equal(v.waiting, waiting);
		assert_true(v.backlog >= 0);
	}
	for (unsigned i = 0; i < 20; i++)
		ledger_release(&c[i], false, now);
	assert_true(p->ledger.backlog == 0.0);
	assert_int_equal(n_of(p), 0);
	endpoints_free(e);
}

static void a_charge_outlives_the_table(void **state)
{
	struct endpoints *e = table("10.0.0.1:8000");
	struct charge a = { 0 };

	ledger_charge(pod_of(e), &a, 1, 1000, 1000, 0);
	endpoints_free(e);
	ledger_first(&a, 1 * MS);
	ledger_release(&a, false, 2 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_ends_on_the_pod_that_it_was_charged_to),
		cmocka_unit_test(only_the_head_of_the_queue_makes_progress),
		cmocka_unit_test(a_pod_and_its_pool_learn_the_rate),
		cmocka_unit_test(an_end_without_a_first_token_teaches_nothing),
		cmocka_unit_test(rounding_does_not_stay_in_the_backlog),
		cmocka_unit_test(a_charge_outlives_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
