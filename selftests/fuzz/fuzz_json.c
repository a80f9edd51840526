/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as JSON, against jansson: both take it or neither, and what was walked, built anew, equals what jansson has
 * read. The differences that are meant: the walk stops at its depth; jansson refuses numbers beyond its range, lone
 * surrogates and NUL in keys, and passes over raw NUL bytes, which no JSON text may hold.
 */
#include <jansson.h>
#include <stdlib.h>

#include "http/json.h"
#include "http/json_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool beyond_jansson;

static void require(bool ok)
{
	if (!ok)
		abort();
}

static struct str unescape(const struct json_val *v, struct buf *out)
{
	require(buf_room(out, 1)); /* so that even nothing has an address */
	if (json_unescape(v, out) < 0)
		beyond_jansson = true;
	else
		require(json_str_is(v, buf_str(out)));
	return buf_str(out);
}

static json_t *build(struct json *j, const struct json_val *v)
{
	struct buf b = { 0 };
	struct json_val k, x;
	json_t *t = v->kind == JSON_T_TRUE ? json_true() : v->kind == JSON_T_FALSE ? json_false() : NULL;

	if (v->kind == JSON_T_STR) {
		struct str s = unescape(v, &b);

		t = json_stringn_nocheck(s.p, s.n);
	} else if (v->kind == JSON_T_NUM) {
		t = json_loadb(v->raw.p, v->raw.n, JSON_DECODE_ANY, NULL);
		beyond_jansson |= !t;
	} else if (v->kind == JSON_T_ARR) {
		for (t = json_array(); json_element(j, &x) > 0;)
			json_array_append_new(t, build(j, &x));
	} else if (v->kind == JSON_T_OBJ) {
		for (t = json_object(); json_member(j, &k, &x) > 0; buf_consume(&b, buf_len(&b))) {
			struct str s = unescape(&k, &b);

			beyond_jansson |= memchr(s.p, 0, s.n) != NULL;
			json_object_setn_new_nocheck(t, s.p, s.n, build(j, &x));
		}
	}
	buf_free(&b);
	return t ? t : json_null();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const scans[] = { "plain", "sse2", "avx2", "avx512" };
	bool nul = size && memchr(data, 0, size);
	json_t *theirs = nul ? NULL : json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

	for (int i = 0; i < 4 && json_scan_use(scans[i]) == 0; i++) {
		struct json j, skip;
		struct json_val v;
		json_t *ours = NULL;

		beyond_jansson = false;
		json_init(&j, (struct str){ (const char *)data, size });
		if (json_value(&j, &v) == 0) {
			skip = j;
			ours = build(&j, &v);
			require(json_skip(&skip, &v, NULL) == j.err && json_end(&skip) == json_end(&j));
		}
		require(j.err ? !theirs || j.depth == JSON_DEPTH_MAX : theirs || beyond_jansson);
		require(j.err || beyond_jansson || json_equal(ours, theirs));
		json_decref(ours);
	}
	json_decref(theirs);
	return 0;
}
