/* SPDX-License-Identifier: Apache-2.0
 * Stories of history: gaps, replays, restarts, reconnects and late clears. The thread under test (pthread_create in
 * events.c) is run under the thread sanitizer, too.
 */
#include <jansson.h>

#include "events_scene.h"

static void on_connect_the_history_is_asked_for_in_either_framing(void **state)
{
	for (int topic = 0; topic < 2; topic++) {
		struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL), b1 = stored(11, 20, TEXT_B, BLOCK, NULL);
		struct asked a;
		struct scene c;

		begin(&c, true);
		a = engine_asked(&c.g);
		assert_true(a.from == 0);
		assert_false(atomic_load(&c.p->index_live));
		reply(&c.g, &a, 0, &b0, topic);
		reply(&c.g, &a, 1, &b1, topic);
		reply_end(&c.g, &a, topic);
		until(atomic_load(&c.p->index_live));
		assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 64);
		publish(&c.g, 1, &b1); /* overlap */
		until(stat(&c, STATS_EVENT_DUP) == 1);
		send_seq(&c, 2, removed(21));
		until(predicted(&c, TEXT_A TEXT_B "x") == 48);
		assert_int_equal(stat(&c, STATS_EVENT_REPLAY), 1);
		assert_int_equal(stat(&c, STATS_EVENT_RESTART), 0);
		buf_free(&b0);
		buf_free(&b1);
		end(&c);
	}
}

/* Frames as others have written them down. Their tokens are no bytes, so that a batch that was read is seen by that. */
static void send_vector(void *sock, const json_t *vectors, const char *name, const struct asked *to)
{
	json_t *v, *frame;
	size_t i, k;

	json_array_foreach(vectors, i, v)
	{
		json_t *frames = json_object_get(v, "frames_hex");

		if (strcmp(json_string_value(json_object_get(v, "name")), name) != 0)
			continue;
		if (to)
			zmq_send(sock, to->id, to->id_len, ZMQ_SNDMORE);
		json_array_foreach(frames, k, frame)
		{
			const char *hex = json_string_value(frame);
			uint8_t b[1024];
			size_t n = strlen(hex) / 2;

			assert_true(n <= sizeof(b));
			for (size_t j = 0; j < n; j++) {
				unsigned byte;

				assert_int_equal(sscanf(hex + 2 * j, "%2x", &byte), 1);
				b[j] = (uint8_t)byte;
			}
			zmq_send(sock, b, n, k + 1 < json_array_size(frames) ? ZMQ_SNDMORE : 0);
		}
		return;
	}
	fail_msg("no vector %s", name);
}

static void every_framing_is_understood(void **state)
{
	static const struct {
		const char *live, *reply, *end;
	} rows[] = {
		{ "live_vllm", "replay_reply_new", "replay_end_new" },
		{ "live_empty_topic", "replay_reply_old", "replay_end_old" },
		{ "live_sim_first", "replay_reply_old", "replay_end_new" },
	};
	json_t *j = json_load_file("selftests/data/zmq_frames.json", 0, NULL);
	json_t *vectors = json_object_get(j, "vectors");

	assert_non_null(j);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct asked a;
		struct scene c;

		begin(&c, true);
		answer_nothing(&c, 0);
		until(atomic_load(&c.p->index_live));
		send_vector(c.g.pub, vectors, rows[i].live, NULL);
		until(stat(&c, STATS_EVENT_TOKEN) == 1);
		end(&c);

		begin(&c, true);
		answer_nothing(&c, 0);
		send_seq(&c, 4, removed(1));
		send_seq(&c, 6, removed(2));
		a = engine_asked(&c.g); /* asserts the frames of replay_request_dealer */
		assert_true(a.from == 5);
		send_vector(c.g.router, vectors, rows[i].reply, &a);
		send_vector(c.g.router, vectors, rows[i].end, &a);
		until(stat(&c, STATS_EVENT_BATCHES) == 3 && atomic_load(&c.p->index_live));
		assert_int_equal(stat(&c, STATS_EVENT_TOKEN), 1);
		assert_int_equal(stat(&c, STATS_EVENT_BAD_FRAME), 0);
		end(&c);
	}
	json_decref(j);
}

/* K1 */
static void a_gap_is_filled_once_and_in_order(void **state)
{
	static const char *const texts[] = { TEXT_A, TEXT_B, TEXT_C, TEXT_D };
	struct buf b[8];
	struct asked a;
	struct scene c;

	/* 0 … 3 build a chain, 4 … 7 take from its end what is applied in order only. */
	for (unsigned i = 0; i < 4; i++)
		b[i] = stored(i ? 10 * i + 1 : 0, 10 * i + 10, texts[i], BLOCK, NULL);
	b[4] = removed(41);
	b[5] = stored(40, 41, &TEXT_D[BLOCK], BLOCK, NULL);
	b[6] = removed(41);
	b[7] = removed(40);
	begin(&c, true);
	answer_nothing(&c, 0);
	for (unsigned i = 0; i < 3; i++)
		publish(&c.g, i, &b[i]);
	until(predicted(&c, TEXT_A TEXT_B TEXT_C "x") == 96);
	publish(&c.g, 6, &b[6]);
	a = engine_asked(&c.g);
	assert_true(a.from == 3);
	assert_int_equal(predicted(&c, TEXT_A TEXT_B TEXT_C "x"), 96); /* usable meanwhile */
	reply(&c.g, &a, 3, &b[3], true);
	publish(&c.g, 7, &b[7]);
	usleep(50000);
	for (unsigned i = 4; i < 7; i++)
		reply(&c.g, &a, i, &b[i], true);
	reply_end(&c.g, &a, true);
	publish(&c.g, 5, &b[5]);
	publish(&c.g, 6, &b[6]);
	until(stat(&c, STATS_EVENT_DUP) == 3); /* 6 was held and replayed; 5 and 6 again */
	assert_int_equal(predicted(&c, TEXT_A TEXT_B TEXT_C TEXT_D "x"), 96);
	assert_int_equal(stat(&c, STATS_EVENT_BATCHES), 8);
	assert_int_equal(stat(&c, STATS_EVENT_GAP), 1);
	assert_int_equal(stat(&c, STATS_EVENT_RESTART) + stat(&c, STATS_EVENT_ORPHAN), 0);
	assert_true(atomic_load(&c.p->index_live));
	send_seq(&c, 8, removed(31)); /* the cursor is at 7 */
	until(predicted(&c, TEXT_A TEXT_B TEXT_C "x") == 80);
	assert_int_equal(stat(&c, STATS_EVENT_GAP), 1);
	for (unsigned i = 0; i < 8; i++)
		buf_free(&b[i]);
	end(&c);
}

/* K1, second half */
static void history_that_is_gone_leaves_the_pod_stale_and_is_not_asked_for_again(void **state)
{
	struct buf b5 = removed(99), b6 = stored(0, 50, TEXT_D, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	publish(&c.g, 6, &b6);
	a = engine_asked(&c.g);
	assert_true(a.from == 1);
	reply(&c.g, &a, 5, &b5, true);
	reply(&c.g, &a, 6, &b6, true);
	reply_end(&c.g, &a, true);
	until(predicted(&c, TEXT_D "x") == 32 && stat(&c, STATS_EVENT_REPLAY_FAIL) == 1);
	assert_true(atomic_load(&c.p->index_stale));
	assert_false(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	send_seq(&c, 7, removed(51));
	until(predicted(&c, TEXT_D "x") == 16);
	assert_false(readable(c.g.router, 700)); /* longer than the cool-down */
	send_seq(&c, 8, cleared());
	until(!atomic_load(&c.p->index_stale) && atomic_load(&c.p->index_live));
	buf_free(&b5);
	buf_free(&b6);
	end(&c);
}

static void a_gap_that_nobody_can_fill_is_asked_for_once(void **state)
{
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 6, stored(0, 20, TEXT_B, BLOCK, NULL));
	answer_nothing(&c, 1);
	until(predicted(&c, TEXT_B "x") == 32);
	assert_true(atomic_load(&c.p->index_stale));
	assert_false(readable(c.g.router, 300));
	assert_int_equal(stat(&c, STATS_EVENT_GAP), 1);
	end(&c);
}

static void a_replay_that_is_silent_is_given_up_and_tried_after_a_pause(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	engine_asked(&c.g);
	publish(&c.g, 0, &b0); /* held */
	until(stat(&c, STATS_EVENT_REPLAY_FAIL) == 1 && predicted(&c, TEXT_A "x") == 32);
	assert_true(atomic_load(&c.p->index_live));
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	reply(&c.g, &a, 0, &b0, false);
	reply_end(&c.g, &a, false);
	until(stat(&c, STATS_EVENT_REPLAY) == 1 && atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	buf_free(&b0);
	end(&c);
}

/* K2 */
static void a_restart_is_seen_without_a_replay_socket(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, removed(99));
	send_seq(&c, 2, removed(98));
	until(predicted(&c, TEXT_A "x") == 32 && stat(&c, STATS_EVENT_BATCHES) == 3);
	send_seq(&c, 0, stored(0, 20, TEXT_B, BLOCK, NULL));
	until(predicted(&c, TEXT_B "x") == 32);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	assert_int_equal(stat(&c, STATS_EVENT_RESTART), 1);
	assert_false(atomic_load(&c.p->index_stale));
	end(&c);
}

static void restart_engine(struct scene *c, bool replay)
{
	engine_stop(&c->g);
	until(!atomic_load(&c->p->index_live));
	engine_start(&c->g, replay);
	engine_subscribed(&c->g);
}

/* K2, variant */
static void a_restart_behind_a_reconnect_is_not_trusted(void **state)
{
	struct scene c;

	begin(&c, false);
	for (uint64_t i = 0; i < 3; i++)
		send_seq(&c, i, stored(i ? 10 * i + 1 : 0, 10 * i + 10, i ? TEXT_B : TEXT_A, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_BATCHES) == 3 && predicted(&c, TEXT_A "x") == 32);
	restart_engine(&c, false);
	until(atomic_load(&c.p->index_stale));
	send_seq(&c, 7, stored(0, 60, TEXT_C, BLOCK, NULL));
	until(predicted(&c, TEXT_C "x") == 32);
	assert_true(atomic_load(&c.p->index_stale));	      /* may still be the same with a gap */
	send_seq(&c, 8, stored(77, 80, TEXT_D, BLOCK, NULL)); /* unknown parent */
	until(stat(&c, STATS_EVENT_RESTART) == 1);
	until(!atomic_load(&c.p->index_stale));
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	end(&c);
}

static void a_mere_reconnect_keeps_what_was_known(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	restart_engine(&c, false);
	until(atomic_load(&c.p->index_stale));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_B "x") == 64);
	until(atomic_load(&c.p->index_live) && !atomic_load(&c.p->index_stale));
	assert_int_equal(stat(&c, STATS_EVENT_RESTART) + stat(&c, STATS_EVENT_GAP), 0);
	end(&c);
}

static void with_replay_a_reconnect_asks_for_the_last_batch_to_tell_who_it_is(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL), b1 = stored(11, 20, TEXT_B, BLOCK, NULL);
	struct buf other = stored(0, 90, TEXT_C, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	publish(&c.g, 0, &b0);
	until(predicted(&c, TEXT_A "x") == 32);

	/* The same engine: one batch was missed. */
	restart_engine(&c, true);
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &b0, true);
	reply(&c.g, &a, 1, &b1, true);
	reply_end(&c.g, &a, true);
	until(predicted(&c, TEXT_A TEXT_B "x") == 64 && atomic_load(&c.p->index_live));
	assert_int_equal(stat(&c, STATS_EVENT_RESTART), 0);

	/* Another: it has nothing from there on. */
	restart_engine(&c, true);
	answer_nothing(&c, 1);
	answer_nothing(&c, 0);
	until(stat(&c, STATS_EVENT_RESTART) == 1 && atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	publish(&c.g, 0, &b0);
	until(predicted(&c, TEXT_A "x") == 32);

	/* Another: its batch of that number is not the one that we saw. */
	restart_engine(&c, true);
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &other, true);
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &other, true);
	reply_end(&c.g, &a, true);
	until(predicted(&c, TEXT_C "x") == 32 && atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	assert_int_equal(stat(&c, STATS_EVENT_RESTART), 2);
	buf_free(&b0);
	buf_free(&b1);
	buf_free(&other);
	end(&c);
}

/* K3 */
static void a_clear_that_comes_late_takes_nothing_that_was_stored_after_it(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	events_invalidate(c.e, c.p, "asleep");
	until(predicted(&c, TEXT_A "x") == 0);
	send_seq(&c, 1, cleared());
	send_seq(&c, 2, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_BATCHES) == 3);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	assert_true(atomic_load(&c.p->index_live));
	end(&c);
}

/* K3: the gateway starts while the engine sleeps; its history is of before. */
static void a_replay_that_was_overtaken_by_a_clear_leaves_nothing(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL), b1 = stored(11, 20, TEXT_B, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	a = engine_asked(&c.g);
	reply(&c.g, &a, 0, &b0, true);
	until(predicted(&c, TEXT_A "x") == 32);
	events_invalidate(c.e, c.p, "asleep");
	until(predicted(&c, TEXT_A "x") == 0);
	reply(&c.g, &a, 1, &b1, true);
	reply(&c.g, &a, 2, &b0, true);
	reply_end(&c.g, &a, true);
	until(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 0);
	send_seq(&c, 3, stored(0, 10, TEXT_A, BLOCK, NULL)); /* awake again */
	until(predicted(&c, TEXT_A "x") == 32);
	buf_free(&b0);
	buf_free(&b1);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_connect_the_history_is_asked_for_in_either_framing),
		cmocka_unit_test(every_framing_is_understood),
		cmocka_unit_test(a_gap_is_filled_once_and_in_order),
		cmocka_unit_test(history_that_is_gone_leaves_the_pod_stale_and_is_not_asked_for_again),
		cmocka_unit_test(a_gap_that_nobody_can_fill_is_asked_for_once),
		cmocka_unit_test(a_replay_that_is_silent_is_given_up_and_tried_after_a_pause),
		cmocka_unit_test(a_restart_is_seen_without_a_replay_socket),
		cmocka_unit_test(a_restart_behind_a_reconnect_is_not_trusted),
		cmocka_unit_test(a_mere_reconnect_keeps_what_was_known),
		cmocka_unit_test(with_replay_a_reconnect_asks_for_the_last_batch_to_tell_who_it_is),
		cmocka_unit_test(a_clear_that_comes_late_takes_nothing_that_was_stored_after_it),
		cmocka_unit_test(a_replay_that_was_overtaken_by_a_clear_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
