/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "http/sse.h"

#define ROWS(a) (sizeof(a) / sizeof((a)[0]))
#define USAGE40                                                                                                   \
	"\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":2,\"total_tokens\":42,\"prompt_tokens_details\":{" \
	"\"cached_"                                                                                               \
	"tokens\":32}}"
#define EVENT \
	"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n"

_Static_assert(sizeof(struct usage_watch) <= 128, "a stream's memory");

static struct usage_watch watch(bool sse, struct str bytes, size_t cut)
{
	struct usage_watch w;

	usage_watch_init(&w, sse);
	for (size_t i = 0; i < bytes.n; i += cut) {
		/* An exact copy, so that a look beyond the piece is seen by the address sanitizer. */
		size_t n = bytes.n - i < cut ? bytes.n - i : cut;
		char *piece = malloc(n);

		memcpy(piece, bytes.p + i, n);
		usage_watch_feed(&w, piece, n);
		free(piece);
	}
	return w;
}

struct row {
	const char *name;
	struct str bytes;
	struct usage want;
	uint32_t events;
	bool done;
};

static void expect(bool sse, const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t cut = 1; cut <= rows[i].bytes.n; cut++) {
			struct usage_watch w = watch(sse, rows[i].bytes, cut);
			const struct usage *u = &w.usage, *v = &rows[i].want;

			if (u->seen != v->seen || u->cached_known != v->cached_known || u->prompt != v->prompt ||
			    u->completion != v->completion || u->cached != v->cached || u->created != v->created ||
			    w.events != rows[i].events || w.done != rows[i].done)
				fail_msg("%s by %zu: seen %d, prompt %u, completion %u, cached %u (%d), events %u, "
					 "done %d",
					 rows[i].name, cut, u->seen, u->prompt, u->completion, u->cached,
					 u->cached_known, w.events, w.done);
		}
}

static void usage_is_seen_in_every_legal_framing(void **state)
{
	static const struct usage yes = { true, true, 40, 2, 32, 0 }, no = { 0 };
	static const struct row rows[] = {
		{ "as engines send it", STR(EVENT "data: {\"choices\":[]," USAGE40 "}\n\ndata: [DONE]\n\n"), yes, 3,
		  true },
		{ "CRLF, no space", STR("data:{\"choices\":[]," USAGE40 "}\r\n\r\ndata: [DONE]\r\n\r\n"), yes, 2,
		  true },
		{ "comment first", STR(": ping\r\ndata:{\"choices\":[]," USAGE40 "}\r\n\r\ndata: [DONE]\r\n\r\n"), yes,
		  2, true },
		{ "lone CR", STR("data:{\"choices\":[]," USAGE40 "}\r\rdata: [DONE]\r\r"), yes, 2, true },
		{ "mixed line ends", STR("data:{" USAGE40 "}\n\r\ndata: [DONE]\r\n\r"), yes, 2, true },
		{ "byte order mark",
		  STR("\xef\xbb\xbf"
		      "data:{" USAGE40 "}\n\n"),
		  yes, 1, false },
		{ "other fields around", STR("event: x\nid: 1\ndata: {" USAGE40 "}\nretry: 5\n\n"), yes, 1, false },
		{ "one event over three lines",
		  STR("data: {\"usage\"\ndata: :{\"prompt_tokens\":40,\ndata:\ndata: \"completion_tokens\":2,"
		      "\"prompt_tokens_details\":{\"cached_tokens\":32\ndata: }}}\n\n"),
		  yes, 1, false },
		{ "one event over two lines that end by CRLF",
		  STR("data:{\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":2,\r\ndata:"
		      "\"prompt_tokens_details\":{\"cached_tokens\":32}}}\r\n\r\n"),
		  yes, 1, false },
		{ "no blank line at the end", STR("data: {" USAGE40 "}"), yes, 0, false },
		{ "blank lines only", STR("\n\n\r\n\r\n"), no, 0, false },
		{ "empty data", STR("data\n\ndata:\n\ndata: \n\n"), no, 3, false },
		{ "comment that speaks of usage", STR(": {" USAGE40 "}\n\nevent: {" USAGE40 "}\n\n"), no, 0, false },
		{ "field that only begins with data", STR("datas: {" USAGE40 "}\n\nxdata: {" USAGE40 "}\n\n"), no, 0,
		  false },
		{ "space before the field", STR(" data: {" USAGE40 "}\n\n"), no, 0, false },
		{ "usage cut by the end of its event", STR("data: {\"usage\":{\"prompt_tokens\":40\n\ndata: }}\n\n"),
		  no, 2, false },
		{ "a number is not joined across lines",
		  STR("data: {\"usage\":{\"prompt_tokens\":4\ndata: 0}}\n\n"),
		  { true, false, 4, 0, 0, 0 },
		  1,
		  false },
		{ "done as text",
		  STR("data: \"[DONE]\"\n\ndata: [DONE] \n\ndata: x[DONE]\n\ndata:  [DONE]\n\n: [DONE]\n\n"), no, 4,
		  false },
		{ "done without a space, without a blank line", STR("data:[DONE]\n"), no, 0, true },
	};

	expect(true, rows, ROWS(rows));
}

static void usage_counts_wherever_it_stands(void **state)
{
	static const struct usage no = { 0 };
	static const struct row rows[] = {
		{ "last member", STR("{\"id\":\"c\"," USAGE40 "}"), { true, true, 40, 2, 32, 0 }, 0, false },
		{ "members behind it",
		  STR("{" USAGE40 ",\"prompt_token_ids\":[0,1,2],\"kv_transfer_params\":{\"a\":[[0]]}}"),
		  { true, true, 40, 2, 32, 0 },
		  0,
		  false },
		{ "blanks everywhere",
		  STR("{ \"usage\" :\n\t{ \"prompt_tokens\" : 40 ,\r\n \"completion_tokens\" : 2\n, "
		      "\"prompt_tokens_details\" : { \"cached_tokens\" : 32 } } }"),
		  { true, true, 40, 2, 32, 0 },
		  0,
		  false },
		{ "details null",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"total_tokens\":21,\"completion_tokens\":16,"
		      "\"prompt_tokens_details\":null,\"completion_tokens_details\":null}}"),
		  { true, false, 5, 16, 0, 0 },
		  0,
		  false },
		{ "cached 0 is known",
		  STR("{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":0},\"prompt_tokens\":5}}"),
		  { true, true, 5, 0, 0, 0 },
		  0,
		  false },
		{ "cached null",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":null}}}"),
		  { true, false, 5, 0, 0, 0 },
		  0,
		  false },
		{ "cached in other details only",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"completion_tokens_details\":{\"cached_tokens\":9,"
		      "\"prompt_tokens\":7},\"cached_tokens\":8}}"),
		  { true, false, 5, 0, 0, 0 },
		  0,
		  false },
		{ "cached deeper than its place",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"prompt_tokens_details\":{\"x\":{\"cached_tokens\":9},"
		      "\"y\":[1,{\"cached_tokens\":8}]}}}"),
		  { true, false, 5, 0, 0, 0 },
		  0,
		  false },
		{ "Responses API",
		  STR("{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":9,"
		      "\"input_tokens_details\":{\"cached_tokens\":8,\"input_tokens_per_turn\":[9]},\"output_tokens\":"
		      "3,"
		      "\"output_tokens_details\":{\"reasoning_tokens\":1}}}}"),
		  { true, true, 9, 3, 8, 0 },
		  0,
		  false },
		{ "Anthropic, two objects",
		  STR("{\"message\":{\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":4,\"cache_creation_"
		      "input_tokens\":7,"
		      "\"output_tokens\":1}}}{\"type\":\"message_delta\",\"usage\":{\"output_tokens\":25}}"),
		  { true, true, 9, 25, 4, 7 },
		  0,
		  false },
		{ "the last one counts",
		  STR("{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}"
		      "{" USAGE40 "}"
		      "{\"usage\":null}"),
		  { true, true, 40, 2, 32, 0 },
		  0,
		  false },
		{ "what is known stays known",
		  STR("{" USAGE40 "}{\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":3}}"),
		  { true, true, 40, 3, 32, 0 },
		  0,
		  false },
		{ "null", STR("{\"usage\":null}"), no, 0, false },
		{ "a string", STR("{\"usage\":\"{\\\"prompt_tokens\\\":1}\",\"a\":{\"prompt_tokens\":1}}"), no, 0,
		  false },
		{ "not an object", STR("{\"usage\":[{\"prompt_tokens\":1}]}"), no, 0, false },
		{ "an object without tokens", STR("{\"properties\":{\"usage\":{\"type\":\"object\",\"n\":5}}}"), no, 0,
		  false },
		{ "output without input", STR("{\"usage\":{\"output_tokens\":25}}"), no, 0, false },
		{ "as a value", STR("{\"a\":\"usage\",\"b\":{\"prompt_tokens\":1}}"), no, 0, false },
		{ "as a value, last", STR("[{\"a\":\"usage\"},{\"prompt_tokens\":1}]"), no, 0, false },
		{ "other keys",
		  STR("{\"usages\":{\"prompt_tokens\":1},\"usag\":{\"prompt_tokens\":1},\"Usage\":{\"prompt_tokens\":"
		      "1},\"the usage\":{\"prompt_tokens\":1}}"),
		  no, 0, false },
		{ "near misses before it",
		  STR("{\"usa\":1,\"\":2,\"us\":\"usa\",\"u\":\"\"," USAGE40 "}"),
		  { true, true, 40, 2, 32, 0 },
		  0,
		  false },
		{ "as generated text",
		  STR("{\"content\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":1}}\",\"text\":\"\\\"usage\\\": {\"}"), no,
		  0, false },
		{ "text that ends in a backslash",
		  STR("{\"content\":\"\\\\\"," USAGE40 "}"),
		  { true, true, 40, 2, 32, 0 },
		  0,
		  false },
		{ "text that begins with it", STR("{\"content\":\"usage\\\":{\\\"prompt_tokens\\\":1}\"}"), no, 0,
		  false },
		{ "text that ends with it", STR("{\"content\":\"the \\\"usage\",\"prompt_tokens\":1}"), no, 0, false },
		{ "key that ends with it", STR("{\"a\\\"usage\":{\"prompt_tokens\":1}}"), no, 0, false },
		{ "strings with braces inside",
		  STR("{\"usage\":{\"x\":\"}{]\\\"}\",\"prompt_tokens\":5,\"y\\\\\":\"\\\\\"}}"),
		  { true, false, 5, 0, 0, 0 },
		  0,
		  false },
		{ "keys that are too long",
		  STR("{\"usage\":{\"cache_read_input_tokens_\":1,\"prompt_tokens_that_are_not_prompt_tokens\":2,"
		      "\"prompt_\\u0074okens\":3,\"prompt_tokens\":4}}"),
		  { true, false, 4, 0, 0, 0 },
		  0,
		  false },
		{ "cached behind other details",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"prompt_tokens_details\":{\"x\":{\"y\":1},\"z\":[1],\"cached_"
		      "tokens\":"
		      "4}}}"),
		  { true, true, 5, 0, 4, 0 },
		  0,
		  false },
		{ "an escape is part of its key",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"\\nprompt_tokens\":6,\"prompt_tokens\\n\":7}}"),
		  { true, false, 5, 0, 0, 0 },
		  0,
		  false },
		{ "no integers",
		  STR("{\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1.5,\"cache_read_input_tokens\":-1}}"),
		  { true, false, 5, 0, 0, 0 },
		  0,
		  false },
		{ "exponent", STR("{\"usage\":{\"prompt_tokens\":5e3}}"), no, 0, false },
		{ "beyond 32 bits",
		  STR("{\"usage\":{\"prompt_tokens\":4294967296,\"completion_tokens\":18446744073709551621}}"),
		  { true, false, UINT32_MAX, UINT32_MAX, 0, 0 },
		  0,
		  false },
		{ "unfinished", STR("{\"usage\":{\"prompt_tokens\":5"), no, 0, false },
		{ "done means nothing here", STR("data: [DONE]\n\n"), no, 0, false },
	};

	expect(false, rows, ROWS(rows));
}

/* About 40 KB behind the usage, and in front of it too, in pieces as a socket gives them. */
static void usage_far_from_the_end_is_seen(void **state)
{
	static const size_t cuts[] = { 1, 100, 1448, 4096, 1 << 20 };
	struct buf b = { 0 };

	buf_puts(&b, "{\"id\":\"c\",\"choices\":[{\"message\":{\"content\":\"");
	for (int i = 0; i < 4000; i++)
		buf_puts(&b, "\\\"us \\\\u");
	buf_puts(&b, "\"}}]," USAGE40 ",\"prompt_logprobs\":null,\"prompt_token_ids\":[0");
	for (int i = 1; i < 8000; i++)
		buf_printf(&b, ",%d", i);
	buf_puts(&b, "]}");
	for (size_t i = 0; i < ROWS(cuts); i++) {
		struct usage_watch w = watch(false, buf_str(&b), cuts[i]);

		assert_true(w.usage.seen && w.usage.cached_known);
		assert_int_equal(w.usage.cached, 32);
	}
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(usage_is_seen_in_every_legal_framing),
		cmocka_unit_test(usage_counts_wherever_it_stands),
		cmocka_unit_test(usage_far_from_the_end_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
