/* SPDX-License-Identifier: Apache-2.0
 * What the index knows by an engine's events: blocks, namespaces, tiers, guesses. The thread under test (pthread_create
 * in events.c) is run under the thread sanitizer, too.
 */
#include "events_scene.h"

static void blocks_are_known_until_they_are_removed_or_cleared(void **state)
{
	struct scene c;

	begin(&c, false);
	until(atomic_load(&c.p->index_live));
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_B "x") == 64);
	send_seq(&c, 2, removed(21));
	until(predicted(&c, TEXT_A TEXT_B "x") == 48);
	send_seq(&c, 3, cleared());
	until(predicted(&c, TEXT_A TEXT_B "x") == 0);
	assert_int_equal(stat(&c, STATS_EVENT_BATCHES), 4);
	assert_int_equal(stat(&c, STATS_EVENT_GAP) + stat(&c, STATS_EVENT_DUP) + stat(&c, STATS_EVENT_ORPHAN), 0);
	assert_true(atomic_load(&c.p->index_live));
	assert_false(atomic_load(&c.p->index_stale));
	end(&c);
}

static void a_salted_chain_is_found_with_its_salt_only(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, "tenant-1"));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL)); /* its child does not repeat it */
	until(predicted_in(&c, TEXT_A TEXT_B "x", "tenant-1") == 64);
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 0);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", "tenant-2"), 0);
	end(&c);
}

static void media_in_mid_chain_match_nothing_behind_them(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, "picture-1"));
	send_seq(&c, 2, stored(21, 30, TEXT_C, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_STORED) == 3);
	assert_int_equal(stat(&c, STATS_EVENT_ORPHAN), 0);
	until(predicted(&c, TEXT_A TEXT_B TEXT_C "x") == 32);
	end(&c);
}

static void an_adapter_s_blocks_are_its_own(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0,
		 stored_as(&(struct what){ .hash = 10,
					   .text = TEXT_A,
					   .block = BLOCK,
					   .lora = "sql",
					   .lora_id = 1,
					   .salt = "sql" /* as vLLM repeats it */ }));
	send_seq(&c, 1, stored_as(&(struct what){ .hash = 20, .text = TEXT_B, .block = BLOCK, .lora_id = 2 }));
	until(predicted_of(&c, "sql", TEXT_A "x", NULL) == 32);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	until(stat(&c, STATS_EVENT_STORED) == 2);
	assert_int_equal(predicted(&c, TEXT_B "x"), 0); /* an adapter whose name nobody knows */
	end(&c);
}

static void only_full_attention_is_indexed(void **state)
{
	struct what a = { .hash = 10, .text = TEXT_A, .block = BLOCK, .kind = "full_attention", .group = 2 };
	struct what b = { .hash = 20, .text = TEXT_B, .block = BLOCK, .kind = "sliding_window", .group = 0 };
	struct what c = { .hash = 30, .text = TEXT_C, .block = BLOCK, .grouped = true, .group = 0 };
	struct what d = { .hash = 40, .text = TEXT_D, .block = BLOCK, .grouped = true, .group = 2 };
	struct scene s;

	begin(&s, false);
	send_seq(&s, 0, stored_as(&a));
	send_seq(&s, 1, stored_as(&b));
	send_seq(&s, 2, stored_as(&c)); /* kinds are told once */
	send_seq(&s, 3, stored_as(&d));
	until(predicted(&s, TEXT_A "x") == 32 && predicted(&s, TEXT_D "x") == 32);
	assert_int_equal(predicted(&s, TEXT_B "x") + predicted(&s, TEXT_C "x"), 0);
	assert_int_equal(stat(&s, STATS_EVENT_GROUP), 2);
	end(&s);
}

static void a_block_lives_while_any_tier_has_it(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored_as(&(struct what){ .hash = 10, .location_of = 2, .medium = "CPU" }));
	/* Described ones come in no order: the child first, then one that nobody knows. */
	send_seq(&c, 2,
		 stored_as(&(struct what){
			 .parent = 10, .hash = 11, .text = &TEXT_A[BLOCK], .block = BLOCK, .medium = "DISK" }));
	send_seq(&c, 3,
		 stored_as(&(struct what){
			 .parent = 777, .hash = 778, .text = TEXT_B, .block = BLOCK, .medium = "CPU" }));
	send_seq(&c, 4, removed_from(11, "GPU"));
	send_seq(&c, 5, removed_from(10, "GPU"));
	until(stat(&c, STATS_EVENT_REMOVED) == 2);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	send_seq(&c, 6, removed_from(11, "CPU"));
	send_seq(&c, 7, removed_from(11, "DISK"));
	until(predicted(&c, TEXT_A "x") == 16);
	/* A copy of a block whose parent has gone. */
	send_seq(&c, 8, stored(0, 50, TEXT_C, BLOCK, NULL));
	send_seq(&c, 9, removed(50));
	send_seq(&c, 10,
		 stored_as(&(struct what){
			 .parent = 50, .hash = 51, .text = &TEXT_C[BLOCK], .block = BLOCK, .medium = "DISK" }));
	until(stat(&c, STATS_EVENT_BATCHES) == 11 && stat(&c, STATS_EVENT_STORED) == 5);
	assert_int_equal(stat(&c, STATS_EVENT_ORPHAN), 1);
	assert_false(atomic_load(&c.p->index_stale));
	end(&c);
}

static void what_lies_elsewhere_is_not_this_pod_s(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0,
		 stored_as(&(struct what){ .hash = 10, .text = TEXT_A, .block = BLOCK, .medium = "SHARED_STORAGE" }));
	send_seq(&c, 1, stored_as(&(struct what){ .hash = 20, .text = TEXT_B, .block = BLOCK, .locality = "REMOTE" }));
	send_seq(&c, 2, stored_as(&(struct what){ .hash = 30, .text = TEXT_C, .block = BLOCK, .locality = "LOCAL" }));
	until(predicted(&c, TEXT_C "x") == 32);
	assert_int_equal(predicted(&c, TEXT_A "x") + predicted(&c, TEXT_B "x"), 0);
	assert_int_equal(stat(&c, STATS_EVENT_MEDIUM), 2);
	end(&c);
}

/* K4 */
static void blocks_of_one_token_count_exactly(void **state)
{
	static char text[302];
	struct scene c;

	for (unsigned i = 0; i < 300; i++)
		text[i] = (char)('a' + i % 23);
	begin(&c, false);
	for (unsigned i = 0; i < 300; i++) {
		char one[2] = { text[i], 0 };

		send_seq(&c, i, stored(i ? 1000 + i - 1 : 0, 1000 + i, one, 1, NULL));
	}
	until(stat(&c, STATS_EVENT_STORED) == 300);
	until(predicted(&c, text) == 299);
	send_seq(&c, 300, removed(1000 + 149));
	until(predicted(&c, text) == 149);
	end(&c);
}

static void what_is_broken_is_counted_and_the_rest_goes_on(void **state)
{
	struct buf junk = { 0 };
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	buf_puts(&junk, "\xc1junk");
	publish(&c.g, 1, &junk);
	zmq_send(c.g.pub, "two", 3, ZMQ_SNDMORE);
	zmq_send(c.g.pub, "frames", 6, 0);
	send_seq(&c, 2, stored(777, 20, TEXT_B, BLOCK, NULL));
	send_seq(&c, 3, stored(11, 30, TEXT_C, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_C "x") == 64);
	assert_int_equal(stat(&c, STATS_EVENT_BAD_BATCH), 1);
	assert_int_equal(stat(&c, STATS_EVENT_BAD_FRAME), 1);
	assert_int_equal(stat(&c, STATS_EVENT_ORPHAN), 1);
	assert_true(atomic_load(&c.p->index_live));
	buf_free(&junk);
	end(&c);
}

static void a_new_base_name_moves_the_pod_to_its_namespace(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	publish(&c.g, 0, &b0);
	until(predicted(&c, TEXT_A "x") == 32);
	events_rebase(c.e, c.p, BASE); /* the same: nothing */
	events_rebase(c.e, c.p, "other");
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &b0, true);
	reply_end(&c.g, &a, true);
	until(stat(&c, STATS_EVENT_REPLAY) == 2);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	buf_free(&b0);
	end(&c);
}

/* P1: the model said four line ends one by one, a prompt with that text has another token. The same ids match. */
static void generated_tokens_that_no_text_has_end_a_match_by_text(void **state)
{
	char err[300];
	struct vocab *v = vocab_load("selftests/data/bpe/qwen", NULL, err, sizeof(err));
	struct canon *canon = v ? canon_new(v) : NULL;
	struct canon_tail tail = { 0 };
	uint32_t ids[8], line = 0, digit = 0;
	struct buf text = { 0 };
	struct scene c;

	assert_non_null(canon);
	while (!str_eq(vocab_token(v, line), STR("\n")))
		line++;
	while (!str_eq(vocab_token(v, digit), STR("7")))
		digit++;
	for (int i = 0; i < 8; i++)
		ids[i] = i < 4 ? digit : line;
	begin_with(&c, false, v);
	send_seq(&c, 0, stored_as(&(struct what){ .hash = 10, .text = "....", .block = 4, .ids = ids }));
	send_seq(&c, 1,
		 stored_as(&(struct what){ .parent = 10, .hash = 20, .text = "....", .block = 4, .ids = ids + 4 }));
	send_seq(&c, 2, stored_as(&(struct what){ .parent = 10, .hash = 30, .text = "....", .block = 4, .ids = ids }));
	until(stat(&c, STATS_EVENT_STORED) == 3);
	assert_int_equal(stat(&c, STATS_EVENT_OTHER_TOKENS), 1);
	assert_int_equal(predicted(&c, "7777\n\n\n\nmore"), 4);
	assert_int_equal(predicted(&c, "77777777more"), 8);
	assert_true(canon_text(canon, &tail, ids, 8, &text) > 0);
	buf_put(&text, "more", 5);
	assert_int_equal(predicted(&c, buf_data(&text)), 8);
	buf_free(&text);
	canon_free(canon);
	end(&c);
}

static void a_guess_is_seen_and_can_be_taken_back(void **state)
{
	static char text[INDEX_CHUNK * 4 + 1];
	struct str parts[1] = { STR(BASE) };
	struct index_guess g = { .holder = 3, .tokens_per_chunk_q8 = 16 << 8, .lru_chunks = 100 };
	uint64_t at[8], places[8];
	struct index_text t;
	struct scene c;

	memset(text, 'q', sizeof(text) - 1);
	begin(&c, false);
	for (int drop = 0; drop < 2; drop++) {
		index_text_init(&t, at, 8);
		assert_int_equal(index_text_feed(c.x, &t, text, strlen(text)), 0);
		index_thin(at, 0, t.n, places);
		g.at = places;
		g.n = t.n;
		g.ns = index_namespace(c.x, parts, 1);
		g.until_ns = time_mono() + 60 * NS_PER_S;
		assert_int_equal(events_guess(c.e, &g, drop), 0);
		memset(places, 0, sizeof(places)); /* has been copied */
		until(drop ? predicted(&c, text) == 0 : predicted(&c, text) > 0);
	}
	end(&c);
}

/* What a request extends is not said again: the hashes begin at <from>. */
static void a_guess_may_continue_an_earlier_one(void **state)
{
	static char text[INDEX_CHUNK * 8 + 1];
	struct str parts[1] = { STR(BASE) };
	struct index_guess g = { .holder = 3, .tokens_per_chunk_q8 = 16 << 8, .lru_chunks = 100 };
	unsigned long before = 0;
	uint64_t at[9], places[4];
	struct index_text t;
	struct scene c;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i / INDEX_CHUNK);
	begin(&c, false);
	index_text_init(&t, at, 9);
	assert_int_equal(index_text_feed(c.x, &t, text, strlen(text)), 0);
	g.ns = index_namespace(c.x, parts, 1);
	g.until_ns = time_mono() + 60 * NS_PER_S;
	g.at = places;
	for (unsigned from = 0; from < 8; from += 4) {
		g.from = from;
		g.n = from + 4;
		index_thin(at, from, from + 4, places);
		assert_int_equal(events_guess(c.e, &g, false), 0);
		until(predicted(&c, text) > before);
		before = predicted(&c, text);
	}
	end(&c);
}

static void a_guess_of_before_events_flow_ends_when_they_do(void **state)
{
	static char text[INDEX_CHUNK * 4 + 1];
	struct str parts[1] = { STR(BASE) };
	struct index_guess g = { .holder = 3, .tokens_per_chunk_q8 = 16 << 8, .lru_chunks = 100 };
	uint64_t at[8], places[8];
	struct index_text t;
	struct asked a;
	struct scene c;

	memset(text, 'q', sizeof(text) - 1);
	begin(&c, true);
	a = engine_asked(&c.g);
	index_text_init(&t, at, 8);
	assert_int_equal(index_text_feed(c.x, &t, text, strlen(text)), 0);
	index_thin(at, 0, t.n, places);
	g.at = places;
	g.n = t.n;
	g.ns = index_namespace(c.x, parts, 1);
	g.until_ns = time_mono() + NS_PER_MS;
	assert_int_equal(events_guess(c.e, &g, false), 0);
	until(predicted(&c, text) > 0);
	usleep(200000);
	assert_false(atomic_load(&c.p->index_live));
	assert_true(predicted(&c, text) > 0); /* nothing could have confirmed it */
	reply_end(&c.g, &a, true);
	until(atomic_load(&c.p->index_live));
	assert_true(predicted(&c, text) > 0);
	until(predicted(&c, text) == 0);
	end(&c);
}

static void a_pod_that_goes_leaves_nothing(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	events_remove(c.e, c.p);
	until(predicted(&c, TEXT_A "x") == 0);
	end(&c);
}

static void a_pod_is_live_when_all_of_its_ranks_are(void **state)
{
	struct pod_spec spec = { .weight = 1, .ranks = 2 };
	struct engine second = { .once = true };
	struct scene c;
	struct pod *p;

	/* A port whose next one is free. */
	for (int i = 0;; i++) {
		begin(&c, false);
		second.pub_port = c.g.pub_port + 1;
		engine_start(&second, false);
		if (second.pub_port)
			break;
		assert_true(i < 20);
		engine_stop(&second);
		end(&c);
	}
	p = c.p;
	net_addr_parse(STR("127.0.0.1:8001"), &spec.addr);
	snprintf(spec.events, sizeof(spec.events), "tcp://127.0.0.1:%u", c.g.pub_port);
	assert_int_equal(endpoints_set(c.table, 0, "second", &spec, 1), 1);
	assert_true(c.p != p);
	c.p->holder[0] = 4;
	c.p->holder[1] = 5;
	events_add(c.e, c.p, c.v, BASE);
	engine_subscribed(&second);
	until(atomic_load(&c.p->index_live));
	engine_stop(&second);
	until(!atomic_load(&c.p->index_live));
	assert_true(atomic_load(&p->index_live));
	events_remove(c.e, p);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_known_until_they_are_removed_or_cleared),
		cmocka_unit_test(a_salted_chain_is_found_with_its_salt_only),
		cmocka_unit_test(media_in_mid_chain_match_nothing_behind_them),
		cmocka_unit_test(an_adapter_s_blocks_are_its_own),
		cmocka_unit_test(only_full_attention_is_indexed),
		cmocka_unit_test(a_block_lives_while_any_tier_has_it),
		cmocka_unit_test(what_lies_elsewhere_is_not_this_pod_s),
		cmocka_unit_test(blocks_of_one_token_count_exactly),
		cmocka_unit_test(what_is_broken_is_counted_and_the_rest_goes_on),
		cmocka_unit_test(a_new_base_name_moves_the_pod_to_its_namespace),
		cmocka_unit_test(generated_tokens_that_no_text_has_end_a_match_by_text),
		cmocka_unit_test(a_guess_is_seen_and_can_be_taken_back),
		cmocka_unit_test(a_guess_may_continue_an_earlier_one),
		cmocka_unit_test(a_guess_of_before_events_flow_ends_when_they_do),
		cmocka_unit_test(a_pod_that_goes_leaves_nothing),
		cmocka_unit_test(a_pod_is_live_when_all_of_its_ranks_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
