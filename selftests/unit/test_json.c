/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/json.h"
#include "http/json_scan.h"

#define ROWS(a) (sizeof(a) / sizeof((a)[0]))

static const char *const scans[] = { "avx512", "avx2", "sse2", "plain" };

/* The whole text, as one that looks for nothing walks it. */
static int check(struct str text)
{
	/* An exact allocation, so that a read beyond the text is seen by the address sanitizer. */
	char *copy = malloc(text.n ? text.n : 1);
	struct json j;
	struct json_val v;
	int r;

	if (text.n)
		memcpy(copy, text.p, text.n);
	json_init(&j, (struct str){ copy, text.n });
	r = json_value(&j, &v);
	if (r == 0)
		r = json_skip(&j, &v, NULL);
	if (r == 0)
		r = json_end(&j);
	free(copy);
	return r;
}

static void what_the_grammar_says_is_json(void **state)
{
	static const struct str good[] = {
		STR("0"),
		STR("-0"),
		STR("10"),
		STR("-1.5e+10"),
		STR("1E5"),
		STR("0.0"),
		STR("0e0"),
		STR("1e-2"),
		STR("true"),
		STR("false"),
		STR("null"),
		STR("\"\""),
		STR("\"a\""),
		STR(" \t\r\n1 \t\r\n"),
		STR("[]"),
		STR("[ ]"),
		STR("{}"),
		STR("{ }"),
		STR("[1,2]"),
		STR("[ 1 , [ ] , { } ]"),
		STR("{\"a\":1,\"a\":2}"),
		STR("{\"\":{\"\":[{}]}}"),
		STR("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00eF\""),
		STR("\"\x7f\""),
		STR("\"\xc2\x80\""),
		STR("\"\xdf\xbf\""),
		STR("\"\xe0\xa0\x80\""),
		STR("\"\xed\x9f\xbf\""),
		STR("\"\xee\x80\x80\""),
		STR("\"\xf0\x90\x80\x80\""),
		STR("\"\xf4\x8f\xbf\xbf\""),
		STR("\"\\ud800\""),
		STR("\"\\u0000\""),
		STR("[\"\\\\\",\"a\"]"),
		STR("123456789012345678901234567890.5e999"),
	};
	static const struct str bad[] = {
		STR(""),
		STR(" "),
		STR("-"),
		STR("+1"),
		STR("01"),
		STR("-01"),
		STR("1."),
		STR(".5"),
		STR("1.e5"),
		STR("1e"),
		STR("1e+"),
		STR("0x1"),
		STR("1 2"),
		STR("NaN"),
		STR("Infinity"),
		STR("tru"),
		STR("truee"),
		STR("True"),
		STR("nul"),
		STR("fals"),
		STR("'a'"),
		STR("\""),
		STR("\"a"),
		STR("\"\\\""),
		STR("\"\\x\""),
		STR("\"\\u12\""),
		STR("\"\\u12g4\""),
		STR("\"\\U1234\""),
		STR("\"\\0\""),
		STR("\"\\"),
		STR("\"\\u"),
		STR("\"\\u123\""),
		STR("\"a\nb\""),
		STR("\"a\tb\""),
		STR("\"\0\""),
		STR("\"\x1f\""),
		STR("["),
		STR("]"),
		STR("[1"),
		STR("[1,"),
		STR("[1,]"),
		STR("[,1]"),
		STR("[,]"),
		STR("[1 2]"),
		STR("[1}"),
		STR("{"),
		STR("}"),
		STR("{\"a\""),
		STR("{\"a\":"),
		STR("{\"a\":1"),
		STR("{\"a\":1,"),
		STR("{\"a\":1,}"),
		STR("{,}"),
		STR("{,\"a\":1}"),
		STR("{1:2}"),
		STR("{a:1}"),
		STR("{\"a\" 1}"),
		STR("{\"a\",1}"),
		STR("{\"a\":1]"),
		STR("{\"a\":}"),
		STR("[]]"),
		STR("{}}"),
		STR("[] x"),
		STR("/**/1"),
		STR("[1]/*"),
		STR("\xef\xbb\xbf"
		    "1"),
		STR("1\0"),
		STR("\v1"),
		STR("\xc2\xa0"
		    "1"),
		STR("\"\x80\""),
		STR("\"\xbf\""),
		STR("\"\xc0\x80\""),
		STR("\"\xc1\xbf\""),
		STR("\"\xc2\""),
		STR("\"\xc2\xc2\x80\""),
		STR("\"\xe0\x80\x80\""),
		STR("\"\xe0\x9f\xbf\""),
		STR("\"\xe2\x82\""),
		STR("\"\xe2\x82\x41\""),
		STR("\"\xed\xa0\x80\""),
		STR("\"\xed\xbf\xbf\""),
		STR("\"\xf0\x80\x80\x80\""),
		STR("\"\xf0\x8f\xbf\xbf\""),
		STR("\"\xf0\x9f\x98\""),
		STR("\"\xf4\x90\x80\x80\""),
		STR("\"\xf5\x80\x80\x80\""),
		STR("\"\xff\""),
		STR("\"\xfe\""),
		STR("{\"\xff\":1}"),
		STR("[\xff]"),
	};

	for (size_t s = 0; s < ROWS(scans); s++) {
		if (json_scan_use(scans[s]) < 0)
			continue;
		for (size_t i = 0; i < ROWS(good); i++)
			if (check(good[i]) != 0)
				fail_msg("%s: refused %.*s", scans[s], (int)good[i].n, good[i].p);
		for (size_t i = 0; i < ROWS(bad); i++)
			if (check(bad[i]) != -EBADMSG)
				fail_msg("%s: accepted row %zu %.*s", scans[s], i, (int)bad[i].n, bad[i].p);
	}
}

/* What <scan> makes of a string's escapes is what the plain loop makes of them. */
static void same_as_plain(const struct json_val *v, const char *scan)
{
	struct buf plain = { 0 }, b = { 0 };

	json_scan_use("plain");
	assert_int_equal(json_unescape(v, &plain), 0);
	json_scan_use(scan);
	assert_int_equal(json_unescape(v, &b), 0);
	assert_true(str_eq(buf_str(&plain), buf_str(&b)));
	buf_free(&plain);
	buf_free(&b);
}

/* Each thing that stops a scanner, at each place of its blocks, with and without text behind the string. */
static void no_place_in_a_block_is_blind(void **state)
{
	static const struct {
		struct str what;
		bool good, escaped;
	} rows[] = {
		{ STR("x"), true, false },
		{ STR("\\n"), true, true },
		{ STR("\\\\"), true, true },
		{ STR("\\\\\\\""), true, true },
		{ STR("\\\\\\\\\\n\\/"), true, true },
		{ STR("\\u20ac"), true, true },
		{ STR("\\\\\\u20ac\\u00e4"), true, true },
		{ STR("\xc3\xa4"), true, false },
		{ STR("\xe2\x82\xac"), true, false },
		{ STR("\xf0\x9f\x98\x80"), true, false },
		{ STR("\x1f"), false, false },
		{ STR("\0"), false, false },
		{ STR("\\q"), false, false },
		{ STR("\\\\\\q"), false, false },
		{ STR("\\\xc3\xa4"), false, false },
		{ STR("\\\n"), false, false },
		{ STR("\xc3"), false, false },
		{ STR("\xe2\x82"), false, false },
		{ STR("\xf0\x9f\x98"), false, false },
		{ STR("\x80"), false, false },
		{ STR("\xed\xa0\x80"), false, false },
		{ STR("\xf4\x90\x80\x80"), false, false },
	};
	char text[400];

	for (size_t s = 0; s < ROWS(scans); s++) {
		if (json_scan_use(scans[s]) < 0)
			continue;
		for (size_t i = 0; i < ROWS(rows); i++)
			for (size_t at = 0; at < 100; at++)
				for (size_t behind = 0; behind < 140; behind += behind < 3 ? 1 : 33) {
					size_t n = 0;
					struct json j;
					struct json_val v;
					int r;

					text[n++] = '"';
					memset(text + n, 'a', at);
					n += at;
					memcpy(text + n, rows[i].what.p, rows[i].what.n);
					n += rows[i].what.n;
					memset(text + n, 'b', behind);
					n += behind;
					text[n++] = '"';
					memset(text + n, ' ', behind);
					n += behind;
					if (check((struct str){ text, n }) != (rows[i].good ? 0 : -EBADMSG))
						fail_msg("%s: row %zu at %zu, %zu behind", scans[s], i, at, behind);
					if (!rows[i].good)
						continue;
					json_init(&j, (struct str){ text, n });
					r = json_value(&j, &v);
					assert_int_equal(r, 0);
					assert_int_equal(v.escaped, rows[i].escaped);
					assert_int_equal(v.raw.n, at + rows[i].what.n + behind);
					same_as_plain(&v, scans[s]);
				}
	}
}

static void strings_unescape_to_what_they_mean(void **state)
{
	static const struct {
		struct str text, value;
		int r;
	} rows[] = {
		{ STR("\"\""), STR(""), 0 },
		{ STR("\"plain \xc3\xa4\""), STR("plain \xc3\xa4"), 0 },
		{ STR("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), STR("\"\\/\b\f\n\r\t"), 0 },
		{ STR("\"a\\u0041\\u00e4\\u20AC\\ud83d\\ude00z\""), STR("aA\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z"), 0 },
		{ STR("\"\\u0000\""), STR("\0"), 0 },
		{ STR("\"\\uffff\\ud7ff\\ue000\""), STR("\xef\xbf\xbf\xed\x9f\xbf\xee\x80\x80"), 0 },
		{ STR("\"\\udbff\\udfff\""), STR("\xf4\x8f\xbf\xbf"), 0 },
		{ STR("\"\\u005cn\""), STR("\\n"), 0 },
		{ STR("\"a\\ud800\""), STR(""), -EILSEQ },
		{ STR("\"\\ud800x\""), STR(""), -EILSEQ },
		{ STR("\"\\ud800\\n\""), STR(""), -EILSEQ },
		{ STR("\"\\ud800\\ud800\""), STR(""), -EILSEQ },
		{ STR("\"\\udc00\""), STR(""), -EILSEQ },
		{ STR("\"\\udc00\\ud800\""), STR(""), -EILSEQ },
		{ STR("\"\\udc00\\udc00\""), STR(""), -EILSEQ },
		{ STR("\"\\ud800\\ue000\""), STR(""), -EILSEQ },
		{ STR("1"), STR(""), -EINVAL },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		struct buf out = { 0 };
		struct json j;
		struct json_val v;

		assert_int_equal(buf_puts(&out, "kept"), 0);
		json_init(&j, rows[i].text);
		assert_int_equal(json_value(&j, &v), 0);
		if (json_unescape(&v, &out) != rows[i].r)
			fail_msg("row %zu", i);
		assert_memory_equal(buf_data(&out), "kept", 4);
		if (!str_eq((struct str){ buf_data(&out) + 4, buf_len(&out) - 4 }, rows[i].value))
			fail_msg("row %zu: %.*s", i, (int)buf_len(&out), buf_data(&out));
		assert_int_equal(json_str_is(&v, rows[i].value), rows[i].r == 0);
		assert_false(json_str_is(&v, STR("other")));
		buf_free(&out);
	}
}

static void a_key_is_known_in_every_spelling(void **state)
{
	static const struct {
		struct str text;
		bool is;
	} rows[] = {
		{ STR("\"model\""), true },
		{ STR("\"m\\u006fdel\""), true },
		{ STR("\"\\u006d\\u006f\\u0064\\u0065\\u006c\""), true },
		{ STR("\"mode\""), false },
		{ STR("\"models\""), false },
		{ STR("\"m\\u006fde\""), false },
		{ STR("\"m\\u006fdels\""), false },
		{ STR("\"Model\""), false },
		{ STR("\"m\\ud800del\""), false },
		{ STR("\"\""), false },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		struct json j;
		struct json_val v;

		json_init(&j, rows[i].text);
		assert_int_equal(json_value(&j, &v), 0);
		if (json_str_is(&v, STR("model")) != rows[i].is)
			fail_msg("row %zu", i);
	}
}

static void integers_are_read_exactly(void **state)
{
	static const struct {
		struct str text;
		int r;
		uint64_t value;
	} rows[] = {
		{ STR("0"), 0, 0 },
		{ STR("18446744073709551615"), 0, UINT64_MAX },
		{ STR("18446744073709551616"), -ERANGE, 0 },
		{ STR("-1"), -EINVAL, 0 },
		{ STR("1.0"), -EINVAL, 0 },
		{ STR("1e3"), -EINVAL, 0 },
		{ STR("\"1\""), -EINVAL, 0 },
		{ STR("true"), -EINVAL, 0 },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		struct json j;
		struct json_val v;
		uint64_t n = 0;

		json_init(&j, rows[i].text);
		assert_int_equal(json_value(&j, &v), 0);
		assert_int_equal(json_u64(&v, &n), rows[i].r);
		assert_int_equal(n, rows[i].value);
	}
}

static void a_request_body_is_walked_once(void **state)
{
	static const char body[] =
		" { \"model\" : \"m/1\", \"tools\": [{\"a\": [1, {\"b\": \"}]\"}]}, 2 ], \"stream\":true,\n"
		"\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e4\",\"x\":{}},"
		"{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"ok\"},{\"type\":\"more\"}]}],"
		"\"seed\":42,\"n\":null,\"model\":\"m/2\"} ";
	struct json j;
	struct json_val v, k, e, f;
	struct str raw;
	struct buf b = { 0 };
	uint64_t n;
	int messages = 0;

	json_init(&j, STR(body));
	assert_int_equal(json_value(&j, &v), 0);
	assert_int_equal(v.kind, JSON_T_OBJ);
	while (json_member(&j, &k, &v) > 0) {
		if (json_str_is(&k, STR("model"))) {
			buf_put(&b, v.raw.p, v.raw.n);
		} else if (json_str_is(&k, STR("tools"))) {
			assert_int_equal(json_skip(&j, &v, &raw), 0);
			assert_true(str_eq(raw, STR("[{\"a\": [1, {\"b\": \"}]\"}]}, 2 ]")));
		} else if (json_str_is(&k, STR("stream"))) {
			assert_int_equal(v.kind, JSON_T_TRUE);
			assert_int_equal(json_skip(&j, &v, &raw), 0);
			assert_true(str_eq(raw, STR("true")));
		} else if (json_str_is(&k, STR("messages"))) {
			while (json_element(&j, &e) > 0) {
				messages++;
				while (json_member(&j, &k, &f) > 0)
					if (f.kind == JSON_T_ARR) {
						/* Leave from the depth of an element's member: the rest is skipped too.
						 */
						struct json_val part;

						assert_int_equal(json_element(&j, &part), 1);
						assert_int_equal(json_member(&j, &k, &part), 1);
						assert_int_equal(json_skip(&j, &f, NULL), 0);
					} else {
						assert_int_equal(json_skip(&j, &f, NULL), 0);
					}
			}
		} else if (json_str_is(&k, STR("seed"))) {
			assert_int_equal(json_u64(&v, &n), 0);
			assert_int_equal(n, 42);
		} else {
			assert_int_equal(json_skip(&j, &v, &raw), 0);
			assert_true(str_eq(raw, STR("null")));
		}
	}
	assert_int_equal(messages, 2);
	assert_true(str_eq(buf_str(&b), STR("m/1m/2")));
	assert_int_equal(json_end(&j), 0);
	buf_free(&b);
}

static void depth_is_bounded(void **state)
{
	char text[2 * JSON_DEPTH_MAX + 2];

	for (size_t n = JSON_DEPTH_MAX; n <= JSON_DEPTH_MAX + 1; n++) {
		memset(text, '[', n);
		memset(text + n, ']', n);
		assert_int_equal(check((struct str){ text, 2 * n }), n <= JSON_DEPTH_MAX ? 0 : -EBADMSG);
	}
}

static void an_error_stays(void **state)
{
	struct json j;
	struct json_val v, k;

	json_init(&j, STR("{\"a\":1,\"b\":tru,\"c\":2}"));
	assert_int_equal(json_value(&j, &v), 0);
	assert_int_equal(json_member(&j, &k, &v), 1);
	assert_int_equal(json_member(&j, &k, &v), -EBADMSG);
	assert_int_equal(json_member(&j, &k, &v), -EBADMSG);
	assert_int_equal(json_end(&j), -EBADMSG);
	/* Asking for members of an array is an error too, not a misreading. */
	json_init(&j, STR("[\"a\"]"));
	assert_int_equal(json_value(&j, &v), 0);
	assert_int_equal(json_member(&j, &k, &v), -EBADMSG);
	json_init(&j, STR(""));
	assert_int_equal(json_end(&j), -EBADMSG);
	json_init(&j, STR("1"));
	assert_int_equal(json_end(&j), -EBADMSG);
	json_init(&j, STR("[]"));
	assert_int_equal(json_value(&j, &v), 0);
	assert_int_equal(json_end(&j), -EBADMSG);
}

/* Tokens of a body that grows by <step> bytes, each time in memory of its own; the prompt is copied on the way. */
static int walk_in_steps(struct str body, size_t step, struct buf *prompt, char *kinds, size_t cap, bool *lone)
{
	struct json_val v;
	char *text = NULL;
	struct json j;
	size_t n = 0;
	int r = 0;

	*lone = false;
	json_start(&j);
	for (size_t have = 0; r == 0 && have < body.n;) {
		have = have + step < body.n ? have + step : body.n;
		free(text);
		text = malloc(have);
		memcpy(text, body.p, have);
		json_feed(&j, (struct str){ text, have }, have == body.n);
		while ((r = json_next(&j, &v)) > 0) {
			if (v.kind == JSON_T_KEY && json_str_is(&v, STR("prompt")))
				j.into = prompt;
			if (v.kind == JSON_T_STR)
				*lone |= v.lone;
			if (v.kind != JSON_T_PART && n + 1 < cap)
				kinds[n++] = "OASNTFZKC"[v.kind];
		}
	}
	kinds[n] = '\0';
	free(text);
	return r;
}

static void a_body_reads_the_same_however_it_arrives(void **state)
{
	static const struct {
		struct str body, prompt;
		const char *kinds;
		int r;
		bool lone;
	} rows[] = {
		{ STR("{\"a\":[1,-2.5e3,true,null],\"prompt\":\"x\\u00e4\\ud83d\\ude00\\n\xe2\x82\xac\",\"b\":{}} "),
		  STR("x\xc3\xa4\xf0\x9f\x98\x80\n\xe2\x82\xac"), "OKANNTZCKSKOCC", 0, false },
		{ STR("{\"prompt\":\"a\\ud83dz\",\"b\":1}"), STR("az"), "OKSKNC", 0, true },
		{ STR("{\"prompt\":[\"a\"],\"c\":\"d\"}"), STR(""), "OKASCKSC", 0, false },
		{ STR("{\"prompt\":\"a\xe2\x82z\"}"), STR(""), "OK", -EBADMSG, false },
		{ STR("{\"prompt\":\"a\",\"n\":1.}"), STR("a"), "OKSK", -EBADMSG, false },
		{ STR("{\"prompt\":\"a"), STR("a"), "OK", -EBADMSG, false },
		{ STR("{\"prompt\":\"a\"}}"), STR("a"), "OKSC", -EBADMSG, false },
	};
	char kinds[64];
	bool lone;

	for (size_t i = 0; i < ROWS(rows); i++)
		for (size_t step = 1; step <= rows[i].body.n; step++) {
			struct buf prompt = { 0 };
			int r = walk_in_steps(rows[i].body, step, &prompt, kinds, sizeof(kinds), &lone);

			if (r != rows[i].r || strcmp(kinds, rows[i].kinds) != 0 || lone != rows[i].lone)
				fail_msg("row %zu by %zu bytes: %d %s", i, step, r, kinds);
			if (rows[i].r == 0 && !str_eq(buf_str(&prompt), rows[i].prompt))
				fail_msg("row %zu by %zu bytes: %.*s", i, step, (int)buf_len(&prompt), prompt.mem);
			buf_free(&prompt);
		}
}

/* More than a window, with something that is cut at every place around its end. */
static void no_window_s_end_is_blind(void **state)
{
	static const struct str what[] = { STR("\\n"), STR("\\u20ac"), STR("\\ud83d\\ude00"), STR("\xf0\x9f\x98\x80") };
	static const struct str means[] = { STR("\n"), STR("\xe2\x82\xac"), STR("\xf0\x9f\x98\x80"),
					    STR("\xf0\x9f\x98\x80") };
	char kinds[8];
	bool lone;

	for (size_t s = 0; s < ROWS(scans); s++) {
		if (json_scan_use(scans[s]) < 0)
			continue;
		for (size_t i = 0; i < ROWS(what); i++)
			for (size_t at = 8170; at < 8195; at++) {
				struct buf body = { 0 }, prompt = { 0 };

				buf_puts(&body, "{\"prompt\":\"");
				for (size_t k = 0; k < at; k++)
					buf_put(&body, "a", 1);
				buf_put(&body, what[i].p, what[i].n);
				buf_puts(&body, "tail\"}");
				assert_int_equal(walk_in_steps(buf_str(&body), 1 << 20, &prompt, kinds, 8, &lone), 0);
				assert_string_equal(kinds, "OKSC");
				assert_false(lone);
				assert_int_equal(buf_len(&prompt), at + means[i].n + 4);
				assert_memory_equal(buf_data(&prompt) + at, means[i].p, means[i].n);
				assert_memory_equal(buf_data(&prompt) + at + means[i].n, "tail", 4);
				buf_free(&body);
				buf_free(&prompt);
			}
	}
}

static void a_number_has_a_limit(void **state)
{
	char text[JSON_NUMBER_MAX + 2];

	memset(text, '1', sizeof(text));
	assert_int_equal(check((struct str){ text, JSON_NUMBER_MAX }), 0);
	assert_int_equal(check((struct str){ text, JSON_NUMBER_MAX + 1 }), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_body_reads_the_same_however_it_arrives),
		cmocka_unit_test(no_window_s_end_is_blind),
		cmocka_unit_test(a_number_has_a_limit),
		cmocka_unit_test(what_the_grammar_says_is_json),
		cmocka_unit_test(no_place_in_a_block_is_blind),
		cmocka_unit_test(strings_unescape_to_what_they_mean),
		cmocka_unit_test(a_key_is_known_in_every_spelling),
		cmocka_unit_test(integers_are_read_exactly),
		cmocka_unit_test(a_request_body_is_walked_once),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(an_error_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
