/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON text to values. Strings with escapes stay as they stand until somebody looks at them (val_force), so a part of a
 * request that the template does not use costs no more than being walked.
 */
#include <stdlib.h>

#include "model/template_int.h"

static struct val string(struct run *r, const struct json_val *v)
{
	struct val s = val_strn(v->raw.p, v->raw.n);

	if (v->raw.n > UINT32_MAX / 4)
		run_fail(r, TEMPLATE_LIMIT, "a string is too long");
	if (v->escaped)
		s.f = F_RAW;
	return s;
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

static struct val array(struct run *r, struct json *j)
{
	struct val list = val_list(r, V_LIST, 4), more;
	struct json_val e;
	uint32_t cap = 4;

	list.n = 0;
	while (json_element(j, &e) > 0) {
		struct val v = json_to_val(r, j, &e);

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

static struct val object(struct run *r, struct json *j)
{
	struct val d = dict_new(r, 4);
	struct json_val k, v;

	while (json_member(j, &k, &v) > 0) {
		struct val key = string(r, &k);

		val_force(r, &key);
		dict_put(r, d.dict, key, json_to_val(r, j, &v));
	}
	return d;
}

/* After an error of the text the value is incomplete, and j->err says so. */
struct val json_to_val(struct run *r, struct json *j, const struct json_val *v)
{
	run_step(r, 2);
	switch (v->kind) {
	case JSON_T_OBJ:
		return object(r, j);
	case JSON_T_ARR:
		return array(r, j);
	case JSON_T_STR:
		return string(r, v);
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
	struct json j;

	json_init(&j, text);
	if (json_value(&j, &first) == 0)
		v = json_to_val(r, &j, &first);
	*ret_ok = json_end(&j) == 0;
	/* Python takes a few texts that we do not: those are neither right nor wrong. */
	if (!*ret_ok && (j.depth == JSON_DEPTH_MAX || memmem(text.p, text.n, "NaN", 3) ||
			 memmem(text.p, text.n, "Infinity", 8) || text.n > JSON_NUMBER_MAX))
		run_unsure(r, "JSON text that is nested too deep or not plain JSON");
	return v;
}
