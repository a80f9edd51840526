/* SPDX-License-Identifier: Apache-2.0
 * What user space decides about splices, as functions of what it sees: framing, ids, watchdog, collection, devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "datapath/splice_int.h"

#define S	   NS_PER_S
#define BIT(EVENT) (1U << CARRIER_##EVENT)
#define NOW	   (1000 * S)
#define STALL	   (60 * S)

/* --- framing --- */

/* bpf/lib/walk.bpf.h's walk, a byte at a time; returns the state at the end of <p>. */
static uint8_t kernel_walk(uint8_t state, uint64_t left, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char b = p[i];

		switch (state) {
		case KVS_WALK_DATA:
			if (!--left)
				state = KVS_WALK_DATA_CR;
			break;
		case KVS_WALK_SIZE_FIRST:
			left = 0;
			/* fall through */
		case KVS_WALK_SIZE:
			state = b == '\r' ? KVS_WALK_SIZE_LF : b == ';' ? KVS_WALK_EXT : KVS_WALK_SIZE;
			if (state == KVS_WALK_SIZE)
				left = left * 16 + (uint64_t)(b <= '9' ? b - '0' : (b | 32) - 'a' + 10);
			break;
		case KVS_WALK_EXT:
			state = b == '\r' ? KVS_WALK_SIZE_LF : KVS_WALK_EXT;
			break;
		case KVS_WALK_SIZE_LF:
			state = left ? KVS_WALK_DATA : KVS_WALK_LINE;
			break;
		case KVS_WALK_DATA_CR:
			state = KVS_WALK_DATA_LF;
			break;
		case KVS_WALK_DATA_LF:
			state = KVS_WALK_SIZE_FIRST;
			break;
		case KVS_WALK_LINE:
			state = b == '\r' ? KVS_WALK_LAST_LF : KVS_WALK_TRAILER;
			break;
		case KVS_WALK_TRAILER:
			state = b == '\r' ? KVS_WALK_TRAILER_LF : KVS_WALK_TRAILER;
			break;
		case KVS_WALK_TRAILER_LF:
			state = KVS_WALK_LINE;
			break;
		case KVS_WALK_LAST_LF:
			state = KVS_WALK_END;
			break;
		default:
			state = KVS_WALK_BAD;
		}
	}
	return state;
}

static void the_kernel_can_go_on_from_any_byte_of_chunked_framing(void **state)
{
	static const char body[] = "3\r\nabc\r\n1A;name=\"v\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0aB\r\n";
	char *all = calloc(1, 4096);
	size_t n = strlen(body);

	memcpy(all, body, n);
	memset(all + n, 'x', 0xab);
	n += 0xab;
	strcpy(all + n, "\r\n0\r\nX-T: 1\r\nY:\r\n\r\n");
	n += strlen(all + n);
	for (size_t at = 0; at < n; at++) {
		struct http_chunks c;
		uint64_t left = 0;
		uint8_t walk = 0;

		http_chunks_init(&c);
		assert_int_equal(http_chunks_walk(&c, all, at, NULL, NULL), at);
		assert_true(frame_walk(&c, &walk, &left));
		assert_int_not_equal(walk, KVS_WALK_END);
		if (walk == KVS_WALK_DATA)
			assert_true(left > 0);
		if (kernel_walk(walk, left, all + at, n - at) != KVS_WALK_END)
			fail_msg("at byte %zu, state %u, left %lu", at, walk, (unsigned long)left);
	}
	free(all);
}

static void what_has_ended_or_is_broken_is_not_handed_over(void **state)
{
	struct http_chunks c;
	uint64_t left;
	uint8_t walk;

	http_chunks_init(&c);
	http_chunks_walk(&c, "0\r\n\r\n", 5, NULL, NULL);
	assert_false(frame_walk(&c, &walk, &left));
	http_chunks_init(&c);
	http_chunks_walk(&c, "zz", 2, NULL, NULL);
	assert_false(frame_walk(&c, &walk, &left));
}

/* --- ids --- */

static void ids_that_were_given_last_are_taken_first_and_none_twice(void **state)
{
	uint32_t v[8] = { 0 }, id;
	struct ids s;

	assert_int_equal(ids_init(&s, 8), 0);
	for (id = 7; id; id--)
		ids_give(&s, &id, 1);
	assert_int_equal(ids_take(&s, v, 3), 3);
	assert_true(v[0] + v[1] + v[2] == 6);
	id = 2;
	ids_give(&s, &id, 1);
	assert_int_equal(ids_take(&s, v, 1), 1);
	assert_int_equal(v[0], 2);
	assert_int_equal(ids_take(&s, v, 8), 4);
	assert_int_equal(ids_take(&s, v, 8), 0);
	ids_free(&s);
}

/* --- the watchdog --- */

/* A splice that has diverted 1000 bytes, of which 400 are acknowledged. */
static struct kvs_splice active(void)
{
	return (struct kvs_splice){ .gen = 7,
				    .state = KVS_ACTIVE,
				    .framing = KVS_LENGTH,
				    .c_split = 0xffffff00,
				    .u_split = 5000,
				    .fwd_end = 6000,
				    .wpos = 6000,
				    .c.snd_una = 0xffffff00u + 400,
				    .pod_win = 63,
				    .segments = 4 };
}

static uint32_t judged(const struct kvs_splice *s, struct watch *w, uint64_t now)
{
	return watch_judge(s, 7, w, now, STALL, true);
}

static void a_splice_that_moves_is_left_alone(void **state)
{
	struct kvs_splice s = active();
	struct watch w = { 0 };

	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(judged(&s, &w, NOW + i * 50 * S), 0);
		s.c.snd_una += 5;
	}
}

static void a_client_that_acknowledges_nothing_is_stalled_a_silent_pod_is_not(void **state)
{
	struct kvs_splice s = active();
	struct watch w = { 0 };

	assert_int_equal(judged(&s, &w, NOW), 0);
	assert_int_equal(judged(&s, &w, NOW + STALL - 1), 0);
	assert_int_equal(judged(&s, &w, NOW + STALL), BIT(STALLED));
	s.c.snd_una = 0xffffff00u + 1000;
	assert_int_equal(judged(&s, &w, NOW + STALL), 0);
	assert_int_equal(judged(&s, &w, NOW + 9 * STALL), 0);
	s.pod_win = 0; /* the client's window is closed: the pod waits */
	assert_int_equal(judged(&s, &w, NOW + 9 * STALL + STALL - 1), 0);
	assert_int_equal(judged(&s, &w, NOW + 10 * STALL), BIT(STALLED));
	s.state = KVS_ARMED;
	assert_int_equal(judged(&s, &w, NOW + 20 * STALL), 0);
}

static void ends_are_told_only_when_their_events_are_late(void **state)
{
	struct kvs_splice s = active();
	struct watch w = { 0 };

	s.state = KVS_ENDED;
	s.ended_at = NOW;
	assert_int_equal(judged(&s, &w, NOW + LATE_NS - 1), 0);
	assert_int_equal(judged(&s, &w, NOW + LATE_NS), BIT(ENDED));
	s.state = KVS_DONE;
	s.done_at = NOW + S;
	assert_int_equal(judged(&s, &w, NOW + S), 0);
	assert_int_equal(judged(&s, &w, NOW + S + LATE_NS), BIT(ENDED) | BIT(DONE));
}

static void a_pod_s_fin_matters_when_nothing_can_come_any_more(void **state)
{
	struct kvs_splice s = active();
	struct watch w = { 0 };

	s.flags = KVS_F_POD_FIN;
	assert_int_equal(judged(&s, &w, NOW), BIT(POD_FIN));
	s.framing = KVS_CHUNKED;
	s.wpos = 5500; /* a gap: it rode on data beyond it */
	assert_int_equal(judged(&s, &w, NOW), 0);
	s.wpos = s.fwd_end;
	assert_int_equal(judged(&s, &w, NOW), BIT(POD_FIN));
	s.state = KVS_ENDED;
	s.ended_at = NOW;
	assert_int_equal(judged(&s, &w, NOW), 0);
	s.flags = KVS_F_POD_RST;
	assert_int_equal(judged(&s, &w, NOW), 0);
	s.state = KVS_ACTIVE;
	assert_int_equal(judged(&s, &w, NOW), BIT(POD_RST));
}

static void what_is_wrong_is_told(void **state)
{
	struct kvs_splice s = active();
	struct watch w = { 0 };

	s.flags = KVS_F_BROKEN | KVS_F_ORPHAN;
	assert_int_equal(judged(&s, &w, NOW), BIT(BROKEN) | BIT(ORPHAN));
	s.flags = 0;
	assert_int_equal(watch_judge(&s, 7, &w, NOW, STALL, false), BIT(NOT_SERVED));
	assert_int_equal(watch_judge(&s, 8, &w, NOW, STALL, true), BIT(GONE));
	s.state = KVS_FREE;
	assert_int_equal(judged(&s, &w, NOW), BIT(GONE));
}

static void data_that_reaches_the_socket_of_a_quiet_splice_went_past_the_programs(void **state)
{
	struct kvs_splice s = active();
	struct watch w = { 0 };

	assert_false(watch_quiet(&s, &w)); /* the first look */
	assert_true(watch_quiet(&s, &w));
	assert_false(watch_bypassed(&s, &w, 10));
	assert_false(watch_bypassed(&s, &w, 12)); /* old ones, repeated */
	assert_true(watch_bypassed(&s, &w, 13));
	s.segments++;
	assert_false(watch_quiet(&s, &w));
	assert_true(watch_quiet(&s, &w));
	assert_false(watch_bypassed(&s, &w, 100)); /* a new baseline */
	s.state = KVS_ARMED;
	assert_false(watch_quiet(&s, &w));
}

/* --- collection --- */

static void orphans_end_by_themselves_and_only_then_go(void **state)
{
	static const struct {
		uint8_t state;
		uint64_t owner;
		bool alive;
		uint64_t quiet;
		enum gc_splice want;
		uint32_t flags;
	} rows[] = {
		{ KVS_FREE, 2, false, 0, GC_FREE, 0 },
		{ KVS_ACTIVE, 2, true, 10 * ORPHAN_NS, GC_KEEP, 0 }, /* another daemon's */
		{ KVS_DONE, 2, true, 10 * ORPHAN_NS, GC_KEEP, 0 },
		{ KVS_ACTIVE, 2, false, ORPHAN_NS - 1, GC_KEEP, 0 },
		{ KVS_ENDED, 2, false, ORPHAN_NS - 1, GC_KEEP, 0 },
		{ KVS_ACTIVE, 2, false, ORPHAN_NS, GC_FORCE, 0 },
		{ KVS_ENDED, 2, false, ORPHAN_NS, GC_FORCE, 0 },
		{ KVS_DONE, 2, false, 0, GC_UNBIND, 0 },
		{ KVS_RELAY, 2, false, 0, GC_UNBIND, 0 },
		{ KVS_ARMED, 2, false, ORPHAN_NS - 1, GC_KEEP, 0 }, /* its next byte makes it active */
		{ KVS_ARMED, 2, false, ORPHAN_NS, GC_FORCE, 0 },
		/* its client or its pod has gone */
		{ KVS_ACTIVE, 2, false, ORPHAN_CUT_NS - 1, GC_KEEP, KVS_F_CLIENT },
		{ KVS_ACTIVE, 2, false, ORPHAN_CUT_NS, GC_FORCE, KVS_F_CLIENT },
		{ KVS_ACTIVE, 2, false, ORPHAN_CUT_NS, GC_FORCE, KVS_F_POD_RST },
		{ KVS_ACTIVE, 2, false, ORPHAN_CUT_NS, GC_FORCE, KVS_F_BROKEN },
		{ KVS_ACTIVE, 2, false, ORPHAN_CUT_NS, GC_FORCE, KVS_F_POD_FIN },
		{ KVS_ENDED, 2, false, ORPHAN_CUT_NS, GC_KEEP, KVS_F_POD_FIN }, /* as it should be */
		{ KVS_ACTIVE, 2, true, 10 * ORPHAN_NS, GC_KEEP, KVS_F_CLIENT },
		{ KVS_ACTIVE, 1, true, 0, GC_FORCE, 0 }, /* ours: the kernel had put the unbind off */
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct kvs_splice s = { .state = rows[i].state, .owner = rows[i].owner, .flags = rows[i].flags };

		if (gc_judge_splice(&s, 1, rows[i].alive, NOW, NOW + rows[i].quiet, ORPHAN_NS) != rows[i].want)
			fail_msg("row %u", i);
	}
}

static void closed_connections_stay_for_their_time(void **state)
{
	const uint64_t retain = KVS_RETAIN_SEC * S;
	struct kvs_conn c = { .born = NOW };

	assert_int_equal(gc_judge_conn(&c, false, NOW + S, retain, NOW), GC_CONN_KEEP); /* young */
	assert_int_equal(gc_judge_conn(&c, false, NOW + 6 * S, retain, NOW), GC_CONN_ASK);
	assert_int_equal(gc_judge_conn(&c, true, NOW + 1000 * S, retain, NOW), GC_CONN_KEEP);
	assert_int_equal(gc_judge_conn(&c, false, NOW + S, retain, NOW + 1), GC_CONN_ASK); /* a former daemon's */
	c.closed_at = NOW + 10 * S;
	assert_int_equal(gc_judge_conn(&c, false, NOW + 10 * S + retain - 1, retain, NOW), GC_CONN_KEEP);
	assert_int_equal(gc_judge_conn(&c, false, NOW + 10 * S + retain, retain, NOW), GC_CONN_DELETE);
	assert_int_equal(gc_judge_conn(&c, false, NOW, retain, NOW), GC_CONN_KEEP); /* closed while we looked */
}

/* --- devices --- */

static void a_device_is_not_served_when_packets_pass_and_our_count_stands_still(void **state)
{
	struct device d = { 0 };

	assert_true(device_watch(&d, HOOK_INGRESS, 100000, 5));
	assert_true(device_watch(&d, HOOK_INGRESS, 100063, 5));
	assert_false(device_watch(&d, HOOK_INGRESS, 100064, 5));
	assert_false(device_watch(&d, HOOK_INGRESS, 200000, 5));
	assert_true(device_watch(&d, HOOK_INGRESS, 200001, 6));
	assert_true(device_watch(&d, HOOK_INGRESS, 200060, 6));
	assert_true(device_watch(&d, HOOK_EGRESS, 300000, 0)); /* its own baseline */
	assert_true(device_watch(&d, HOOK_INGRESS, 5, 6));     /* the device's counts began anew */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_can_go_on_from_any_byte_of_chunked_framing),
		cmocka_unit_test(what_has_ended_or_is_broken_is_not_handed_over),
		cmocka_unit_test(ids_that_were_given_last_are_taken_first_and_none_twice),
		cmocka_unit_test(a_splice_that_moves_is_left_alone),
		cmocka_unit_test(a_client_that_acknowledges_nothing_is_stalled_a_silent_pod_is_not),
		cmocka_unit_test(ends_are_told_only_when_their_events_are_late),
		cmocka_unit_test(a_pod_s_fin_matters_when_nothing_can_come_any_more),
		cmocka_unit_test(what_is_wrong_is_told),
		cmocka_unit_test(data_that_reaches_the_socket_of_a_quiet_splice_went_past_the_programs),
		cmocka_unit_test(orphans_end_by_themselves_and_only_then_go),
		cmocka_unit_test(closed_connections_stay_for_their_time),
		cmocka_unit_test(a_device_is_not_served_when_packets_pass_and_our_count_stands_still),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
