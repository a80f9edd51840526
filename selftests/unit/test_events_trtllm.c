/* SPDX-License-Identifier: Apache-2.0
 * TensorRT-LLM's JSON into events: a table of texts and what is made of each, one line an event.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "events/events.h"

static void put_str(struct buf *b, const char *what, struct str s)
{
	if (s.p)
		buf_printf(b, " %s=%.*s", what, (int)s.n, s.p);
}

/* "stored 5,6 < 4: 1 2 3 4 (2) GPU" */
static void event(void *arg, const struct kv_event *e)
{
	static const char *const types[] = { "stored", "removed", "cleared", "unknown" };
	struct buf *b = arg;

	buf_printf(b, "%s", types[e->type]);
	for (unsigned i = 0; i < e->nhashes; i++)
		buf_printf(b, "%c%llx", i ? ',' : ' ', (unsigned long long)e->hashes[i]);
	if (e->has_parent)
		buf_printf(b, " < %llx", (unsigned long long)e->parent);
	for (unsigned i = 0; i < e->ntokens; i++)
		buf_printf(b, "%s %u", i ? "" : ":", e->tokens[i]);
	if (e->ntokens)
		buf_printf(b, " (%u)", e->block_size);
	put_str(b, "in", e->medium);
	put_str(b, "lora", e->lora_name);
	if (e->lora_id)
		buf_printf(b, " lora#%lld", (long long)e->lora_id);
	put_str(b, "salt", e->salt);
	for (unsigned i = 0; i < e->nextra; i++)
		buf_printf(b, " extra=%.*s@%u", (int)e->extra[i].n, e->extra[i].p, e->extra_at[i]);
	if (e->window)
		buf_printf(b, " window=%u", e->window);
	if (e->has_group)
		buf_printf(b, " group=%lld", (long long)e->group);
	if (e->everywhere)
		buf_puts(b, " everywhere");
	buf_puts(b, "\n");
}

static void check(struct trt_state *st, const char *text, const char *want)
{
	struct kv_batch_info info;
	struct buf b = { 0 };

	assert_int_equal(trt_decode(st, str_of(text), &info, event, &b), 0);
	for (unsigned i = 0; i < info.bad_events; i++)
		buf_puts(&b, "bad\n");
	for (unsigned i = 0; i < info.unknown_events; i++)
		buf_puts(&b, "unknown\n");
	for (unsigned i = 0; i < info.partial_blocks; i++)
		buf_puts(&b, "partial\n");
	buf_put(&b, "", 1);
	if (strcmp(buf_data(&b), want) != 0)
		fail_msg("%s\ngives\n%s\nnot\n%s", text, buf_data(&b), want);
	buf_free(&b);
}

#define EV(data)	  "{\"event_id\":1,\"data\":{" data "}}"
#define STORED(parent, b) EV("\"type\":\"stored\",\"parent_hash\":" parent ",\"blocks\":[" b "]")
#define BLOCK(hash, more, tokens) \
	"{\"type\":\"stored_block\",\"block_hash\":" hash ",\"priority\":35" more ",\"tokens\":[" tokens "]}"
#define T(n)  "{\"type\":\"unique_token\",\"token_id\":" #n ",\"token_extra_id\":0}"
#define TX(n) "{\"type\":\"unique_token\",\"token_id\":" #n ",\"token_extra_id\":9}"
#define NAMED "\"lora_name\":\"s\\u0071l\""
#define GPU   ",\"cache_level\":0"
#define HOST  ",\"cache_level\":1"

static void each_event_is_read(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ EV("\"type\":\"created\",\"num_blocks_per_cache_level\":[10,0]"), "cleared\n" },
		{ STORED("null", BLOCK("5", GPU, T(1) "," T(2))), "stored 5: 1 2 (2) in=GPU\n" },
		{ STORED("0", BLOCK("5", GPU, T(1) "," T(2))), "stored 5: 1 2 (2) in=GPU\n" },
		{ STORED("4", BLOCK("5", GPU, T(1) "," T(2)) "," BLOCK("6", GPU, T(3) "," T(4))),
		  "stored 5,6 < 4: 1 2 3 4 (2) in=GPU\n" },
		{ STORED("-1", BLOCK("-2", GPU, T(1) "," T(2))),
		  "stored fffffffffffffffe < ffffffffffffffff: 1 2 (2) in=GPU\n" },
		{ STORED("18446744073709551615", BLOCK("18446744073709551614", GPU, T(1) "," T(2))),
		  "stored fffffffffffffffe < ffffffffffffffff: 1 2 (2) in=GPU\n" },
		{ STORED("null", BLOCK("5", GPU, "1,2")), "stored 5: 1 2 (2) in=GPU\n" },
		{ STORED("null", BLOCK("5", GPU, T(1) "," T(2)) "," BLOCK("6", HOST, T(3) "," T(4))),
		  "stored 5: 1 2 (2) in=GPU\nstored 6 < 5: 3 4 (2) in=CPU\n" },
		{ STORED("null", BLOCK("5", ",\"cache_level\":7", T(1) "," T(2))), "stored 5: 1 2 (2) in=DISK\n" },
		{ STORED("null", ""), "" },
		{ EV("\"type\":\"removed\",\"block_hashes\":[5,6]"), "removed 5,6 in=GPU everywhere\n" },
		{ EV("\"type\":\"updated\",\"block_hash\":5,\"cache_level\":{\"new_value\":1,\"old_value\":0},"
		     "\"priority\":null"),
		  "stored 5 in=CPU\nremoved 5 in=GPU\n" },
		{ EV("\"type\":\"updated\",\"block_hash\":5,\"cache_level\":null,\"priority\":{\"new_value\":1}"), "" },
		{ EV("\"type\":\"updated\",\"block_hash\":5,\"cache_level\":{\"new_value\":0,\"old_value\":0}"), "" },
		{ EV("\"type\":\"moved\",\"block_hash\":5"), "unknown\n" },
		/* names and media */
		{ EV("\"type\":\"stored\",\"parent_hash\":null,\"blocks\":[" BLOCK("5", GPU, T(1) "," T(2)) "]," NAMED),
		  "stored 5: 1 2 (2) in=GPU lora=sql\n" },
		{ STORED("null", BLOCK("5", GPU ",\"lora_id\":0,\"cache_salt\":\"t1\"", T(1) "," T(2))),
		  "stored 5: 1 2 (2) in=GPU lora#1 salt=t1\n" },
		{ STORED("null", BLOCK("5", GPU ",\"lora_id\":null,\"cache_salt\":null", T(1) "," T(2))),
		  "stored 5: 1 2 (2) in=GPU\n" },
		{ STORED("null",
			 BLOCK("5", GPU, T(1) "," T(2)) "," BLOCK(
				 "6", GPU ",\"mm_keys\":[{\"type\":\"mm_key\",\"hash\":\"ab\",\"start_offset\":0}]",
				 T(3) "," T(4))),
		  "stored 5,6: 1 2 3 4 (2) in=GPU extra=ab@1\n" },
		{ STORED("null", BLOCK("5", GPU ",\"mm_keys\":[{\"hash\":\"ab\",\"start_offset\":-3}]", T(1) "," T(2))),
		  "stored 5: 1 2 (2) in=GPU\n" },
		{ STORED("null", BLOCK("5", GPU, T(1) "," T(2)) "," BLOCK("6", GPU, TX(3) "," TX(4))),
		  "stored 5,6: 1 2 3 4 (2) in=GPU extra=9@1\n" },
		/* broken */
		{ "", "bad\n" },
		{ "[]", "bad\n" },
		{ "{\"event_id\":1}", "bad\n" },
		{ "{\"event_id\":1,\"data\":[]}", "bad\n" },
		{ EV("\"block_hashes\":[5]"), "bad\n" },
		{ EV("\"type\":5,\"block_hashes\":[5]"), "bad\n" },
		{ EV("\"type\":\"removed\""), "bad\n" },
		{ EV("\"type\":\"removed\",\"block_hashes\":5"), "bad\n" },
		{ EV("\"type\":\"removed\",\"block_hashes\":[5,null]"), "bad\n" },
		{ EV("\"type\":\"removed\",\"block_hashes\":[5,1.5]"), "bad\n" },
		{ EV("\"type\":\"stored\",\"parent_hash\":null"), "bad\n" },
		{ STORED("[]", BLOCK("5", GPU, T(1) "," T(2))), "bad\n" },
		{ STORED("null", "7"), "bad\n" },
		{ STORED("null", BLOCK("null", GPU, T(1) "," T(2))), "bad\n" },
		{ STORED("null", BLOCK("5", ",\"cache_level\":\"x\"", T(1) "," T(2))), "bad\n" },
		{ STORED("null", BLOCK("5", GPU, "-1,2")), "bad\n" },
		{ STORED("null", BLOCK("5", GPU, "4294967296,2")), "bad\n" },
		{ STORED("null", BLOCK("5", GPU, "{},{}")), "bad\n" },
		{ STORED("null", BLOCK("5", GPU, "")), "bad\n" },
		{ STORED("5", BLOCK("5", GPU, T(1) "," T(2))), "bad\n" },
		{ STORED("null", "{\"block_hash\":5}"), "bad\n" },
		{ EV("\"type\":\"updated\",\"cache_level\":{\"new_value\":0,\"old_value\":1}"), "bad\n" },
		{ EV("\"type\":\"updated\",\"block_hash\":5,\"cache_level\":{\"new_value\":1}"), "bad\n" },
		{ EV("\"type\":\"updated\",\"block_hash\":5,\"cache_level\":1"), "bad\n" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct trt_state st = { .block = 2 };

		check(&st, rows[i].text, rows[i].want);
	}
}

static void partial_blocks_are_left_out_and_end_their_chain(void **state)
{
	struct trt_state st = { 0 };

	/* Before a full one is seen: what is no power of two is none, what is passes for one. */
	check(&st, STORED("null", BLOCK("1", GPU, "1,2,3")), "partial\n");
	check(&st, STORED("null", BLOCK("2", GPU, "1,2")), "stored 2: 1 2 (2) in=GPU\n");
	check(&st, STORED("null", BLOCK("3", GPU, "1,2,3,4")), "stored 3: 1 2 3 4 (4) in=GPU\n");
	assert_int_equal(st.block, 4);
	check(&st, STORED("3", BLOCK("4", GPU, "5,6,7,8") "," BLOCK("5", GPU, "9,10")),
	      "stored 4 < 3: 5 6 7 8 (4) in=GPU\npartial\n");
	check(&st, STORED("3", BLOCK("6", GPU, "5") "," BLOCK("7", GPU, "9,10,11,12")), "partial\npartial\n");
	/* Sizes that do not fit a chain, or nothing. */
	check(&st, STORED("3", BLOCK("8", GPU, "1,2,3,4") "," BLOCK("9", GPU, "1,2,3,4,5,6,7,8")), "bad\n");
	check(&st, STORED("3", BLOCK("8", GPU, "1,2,3,4,5")), "bad\n");
	assert_int_equal(st.block, 4);
}

static void one_of(void *arg, uint64_t id, uint64_t rank, struct str text)
{
	static struct trt_state st;
	struct kv_batch_info info;

	buf_printf(arg, "%llu/%llu ", (unsigned long long)id, (unsigned long long)rank);
	trt_decode(&st, text, &info, event, arg);
	assert_int_equal(info.bad_events + info.unknown_events, 0);
}

static void the_samples_are_understood(void **state)
{
	static const struct {
		const char *name, *want;
	} rows[] = {
		{ "v1", "0/0 cleared\n1/0 stored 3a5468e958b2edd5: 1 15043 (2) in=GPU\n"
			"2/0 stored 3a5468e958b2edd5 in=CPU\nremoved 3a5468e958b2edd5 in=GPU\n"
			"3/0 removed 3a5468e958b2edd5 in=GPU everywhere\n" },
		{ "windows", "7/2 stored fffffffffffffffe < fffffffffffffffb: 7 8 (2) in=CPU lora=sql-lora window=4096 "
			     "group=1\n" },
	};
	FILE *f = fopen("selftests/data/trtllm_kv_events.json", "r");
	char text[8192];

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char key[32], *at, *end;
		struct buf b = { 0 };
		unsigned bad;

		/* As it came: jansson has no numbers of 64 bits without sign. */
		snprintf(key, sizeof(key), "\"%s\": ", rows[i].name);
		at = strstr(text, key);
		assert_non_null(at);
		at += strlen(key);
		end = strchr(at, '\n');
		while (end[-1] != ']')
			end--;
		assert_int_equal(trt_poll((struct str){ at, (size_t)(end - at) }, one_of, &b, &bad), 0);
		assert_int_equal(bad, 0);
		buf_put(&b, "", 1);
		assert_string_equal(buf_data(&b), rows[i].want);
		buf_free(&b);
	}
}

static void count(void *arg, uint64_t id, uint64_t rank, struct str text)
{
	++*(unsigned *)arg;
}

static void an_answer_that_is_no_list_gives_nothing(void **state)
{
	static const struct {
		const char *text;
		int r;
		unsigned events, bad;
	} rows[] = {
		{ "[]", 0, 0, 0 },
		{ " [ ] \n", 0, 0, 0 },
		{ "[{\"event_id\":1,\"data\":{}}]", 0, 1, 0 },
		{ "[{\"event_id\":1},7,{},{\"event_id\":-1},{\"event_id\":\"1\"},{\"event_id\":9223372036854775808}]",
		  0, 1, 5 },
		{ "[{\"event_id\":1,\"attention_dp_rank\":null},{\"event_id\":1,\"attention_dp_rank\":8}]", 0, 1, 1 },
		{ "", -EBADMSG, 0, 0 },
		{ "null", -EBADMSG, 0, 0 },
		{ "{\"detail\":\"Not Found\"}", -EBADMSG, 0, 0 },
		{ "[{\"event_id\":1},{\"event_id\":2}", -EBADMSG, 0, 0 },
		{ "[{\"event_id\":1}]x", -EBADMSG, 0, 0 },
		{ "<html>", -EBADMSG, 0, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned n = 0, bad;

		assert_int_equal(trt_poll(str_of(rows[i].text), count, &n, &bad), rows[i].r);
		if (n != rows[i].events || bad != rows[i].bad)
			fail_msg("%s: %u events, %u bad", rows[i].text, n, bad);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_event_is_read),
		cmocka_unit_test(partial_blocks_are_left_out_and_end_their_chain),
		cmocka_unit_test(the_samples_are_understood),
		cmocka_unit_test(an_answer_that_is_no_list_gives_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
