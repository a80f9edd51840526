/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as JSON that arrives in pieces, its strings copied on the way: the tokens, the unescaped strings and the
 * end are those of the same text read in one.
 */
#include <errno.h>
#include <stdlib.h>

#include "http/json.h"
#include "http/json_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

/* A line per token; a string's value is what was copied, or what json_unescape makes of it. */
static void note(struct buf *log, struct buf *copied, bool copy, const struct json_val *v)
{
	struct buf b = { 0 };
	int e = v->kind == JSON_T_STR ? json_unescape(v, &b) : 0;

	if (v->kind == JSON_T_PART)
		return;
	require(buf_printf(log, "%d %u ", v->kind, v->kind == JSON_T_OBJ || v->kind == JSON_T_ARR ? v->depth : 0) == 0);
	if (v->kind == JSON_T_STR && copy) {
		require(v->lone == (e == -EILSEQ) && (v->lone || str_eq(buf_str(copied), buf_str(&b))));
		buf_free(copied);
	}
	require(e || !buf_put(log, buf_data(&b), buf_len(&b)));
	if (v->kind == JSON_T_STR || v->kind == JSON_T_KEY || v->kind == JSON_T_NUM)
		require(buf_put(log, v->raw.p, v->raw.n) == 0);
	require(buf_puts(log, "\n") == 0);
	buf_free(&b);
}

/* Each state of the text lies in memory of its own, exactly as long as it is. <step>: 0 is all at once. */
static int walk(const uint8_t *data, size_t size, bool copy, const uint8_t *step, struct buf *log)
{
	struct buf copied = { 0 };
	struct json_val v;
	char *text = NULL;
	struct json j;
	int r = 0;

	json_start(&j);
	for (size_t n = 0, i = 0; r == 0 && (n < size || i == 0); i++) {
		size_t more = step ? step[i % 8] % 31 + (i % 8 == 7 ? 9000u : 0u) : size;

		n = more < size - n ? n + more : size;
		free(text);
		text = malloc(n ? n : 1);
		require(text != NULL);
		memcpy(text, data, n);
		json_feed(&j, (struct str){ text, n }, n == size);
		for (;;) {
			j.into = copy ? &copied : NULL;
			r = json_next(&j, &v);
			if (r <= 0)
				break;
			note(log, &copied, copy, &v);
		}
	}
	free(text);
	buf_free(&copied);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const scans[] = { "plain", "sse2", "avx2", "avx512" };

	if (size < 8) /* how it is cut, then the text */
		return 0;
	for (int i = 0; i < 4 && json_scan_use(scans[i]) == 0; i++)
		for (int copy = 0; copy < 2; copy++) {
			struct buf one = { 0 }, many = { 0 };

			int e = walk(data + 8, size - 8, false, NULL, &one);

			require(walk(data + 8, size - 8, copy, data, &many) == e);
			require(e || str_eq(buf_str(&one), buf_str(&many)));
			buf_free(&one);
			buf_free(&many);
		}
	return 0;
}
