/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON text to values. Strings are copied without their escapes while the text is walked, into one piece of memory as
 * long as the text. A string with half of a surrogate pair has no text: it fails when somebody looks at it (val_force).
 */
#include <errno.h>
#include <stdlib.h>

#include "model/template_int.h"

#define SLACK 256 /* copying asks for more room than it fills */

void json_in_start(struct run *r, struct json_in *in, struct str text)
{
	if (text.n > UINT32_MAX / 4)
		run_fail(r, TEMPLATE_LIMIT, "a JSON text is too long");
	json_init(&in->j, text);
	in->text = (struct buf){ .mem = run_bytes(r, text.n + SLACK), .cap = text.n + SLACK };
	in->start = 0;
	in->j.into = &in->text;
}

/* The rest of a string that came in parts. */
static int whole(struct json_in *in, int got, struct json_val *v)
{
	while (got > 0 && v->kind == JSON_T_PART)
		got = json_next(&in->j, v) > 0 ? 1 : -EBADMSG;
	return got;
}

int json_in_member(struct json_in *in, struct json_val *ret_key, struct json_val *ret_val)
{
	in->j.into = &in->text;
	in->start = in->text.len;
	return whole(in, json_member(&in->j, ret_key, ret_val), ret_val);
}

static int element(struct json_in *in, struct json_val *ret)
{
	in->j.into = &in->text;
	in->start = in->text.len;
	return whole(in, json_element(&in->j, ret), ret);
}

static struct val string(struct json_in *in, const struct json_val *v)
{
	struct val s = val_strn(in->text.mem + in->start, in->text.len - in->start);

	if (v->lone)
		s.f = F_LONE;
	return s;
}

static struct val key_of(struct run *r, const struct json_val *k)
{
	struct buf b = { 0 };

	if (!k->escaped)
		return val_strn(k->raw.p, k->raw.n);
	b.cap = k->raw.n + SLACK;
	b.mem = run_bytes(r, b.cap);
	if (json_unescape(k, &b) < 0)
		run_unsure(r, "half of a surrogate pair in a key");
	return val_strn(b.mem, b.len);
}

static struct val number(struct run *r, struct str s)
{
	char text[JSON_NUMBER_MAX + 1];
	bool ok;

	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '.' || (s.p[i] | 0x20) == 'e') {
			memcpy(text, s.p, s.n);
			text[s.n] = 0;
			return val_float(strtod(text, NULL));
		}
	if (s.n < 19) {
		bool negative = s.p[0] == '-';
		int64_t v = 0;

		for (size_t i = negative; i < s.n; i++)
			v = v * 10 + (s.p[i] - '0');
		return val_int(negative ? -v : v);
	}
	return number_parse(r, s, 10, &ok);
}

static struct val array(struct run *r, struct json_in *in)
{
	struct val list = val_list(r, V_LIST, 4), more;
	struct json_val e;
	uint32_t cap = 4;

	list.n = 0;
	while (element(in, &e) > 0) {
		struct val v = json_to_val(r, in, &e);

		if (list.n == cap) {
			more = val_list(r, V_LIST, (size_t)cap * 2);
			memcpy(more.at, list.at, list.n * sizeof(v));
			list.at = more.at;
			cap *= 2;
		}
		list.at[list.n++] = v;
	}
	return list;
}

static struct val object(struct run *r, struct json_in *in)
{
	struct val d = dict_new(r, 4);
	struct json_val k, v;

	while (json_in_member(in, &k, &v) > 0) {
		struct val key = key_of(r, &k);

		dict_put(r, d.dict, key, json_to_val(r, in, &v));
	}
	return d;
}

/* After an error of the text the value is incomplete, and in->j.err says so. */
struct val json_to_val(struct run *r, struct json_in *in, const struct json_val *v)
{
	run_step(r, 2);
	switch (v->kind) {
	case JSON_T_OBJ:
		return object(r, in);
	case JSON_T_ARR:
		return array(r, in);
	case JSON_T_STR:
		return string(in, v);
	case JSON_T_NUM:
		return number(r, v->raw);
	case JSON_T_TRUE:
	case JSON_T_FALSE:
		return val_bool(v->kind == JSON_T_TRUE);
	default:
		return val_of(V_NONE);
	}
}

struct val json_text_to_val(struct run *r, struct str text, bool *ret_ok)
{
	struct val v = val_of(V_NONE);
	struct json_val first;
	struct json_in in;
	int got;

	json_in_start(r, &in, text);
	got = whole(&in, json_value(&in.j, &first) == 0, &first);
	if (got > 0)
		v = json_to_val(r, &in, &first);
	*ret_ok = got > 0 && json_end(&in.j) == 0;
	/* Python takes a few texts that we do not: those are neither right nor wrong. */
	if (!*ret_ok && (in.j.depth == JSON_DEPTH_MAX || memmem(text.p, text.n, "NaN", 3) ||
			 memmem(text.p, text.n, "Infinity", 8) || text.n > JSON_NUMBER_MAX))
		run_unsure(r, "JSON text that is nested too deep or not plain JSON");
	return v;
}
