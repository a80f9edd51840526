/* SPDX-License-Identifier: Apache-2.0
 *
 * Values as text: Python's str(), its val_repr(), and json.dumps as transformers calls it.
 */
#include <math.h>
#include <stdio.h>

#include "model/template_int.h"

/* --- where output goes --- */

static void flush(struct run *r)
{
	struct out *o = &r->main_out;

	if (o->n && r->sink.put(r->sink.ctx, o->p, o->n))
		run_fail(r, TEMPLATE_SINK, "the output could not be taken");
	o->n = 0;
}

static void out_grow(struct run *r, struct out *o, size_t n)
{
	size_t more = o->n + n + 64;
	char *q;

	if (more + o->n > UINT32_MAX / 4)
		run_fail(r, TEMPLATE_LIMIT, "a text is too long");
	if (o->p && template_mem_grow(r->mem, o->p, o->cap, more)) {
		o->cap += more;
		return;
	}
	q = run_bytes(r, o->cap + more);
	if (o->n)
		memcpy(q, o->p, o->n);
	o->p = q;
	o->cap += more;
}

char *out_room(struct run *r, size_t n)
{
	struct out *o = r->out;

	if (o->cap - o->n < n) {
		if (o->sink)
			flush(r);
		else
			out_grow(r, o, n);
	}
	return o->p + o->n;
}

void out_commit(struct run *r, size_t n)
{
	if (n > r->output_max - r->output)
		run_fail(r, TEMPLATE_LIMIT, "more output than the limit");
	if (r->out->sink)
		r->output += n;
	r->out->n += n;
}

void out_put(struct run *r, const char *p, size_t n)
{
	struct out *o = r->out;

	run_step(r, n / 256);
	if (o->sink && n > OUT_ROOM) {
		if (n > r->output_max - r->output)
			run_fail(r, TEMPLATE_LIMIT, "more output than the limit");
		r->output += n;
		flush(r);
		if (r->sink.put(r->sink.ctx, p, n))
			run_fail(r, TEMPLATE_SINK, "the output could not be taken");
		return;
	}
	if (n) {
		memcpy(out_room(r, n), p, n);
		out_commit(r, n);
	}
}

void out_capture(struct run *r, struct out *o)
{
	*o = (struct out){ .outer = r->out };
	r->out = o;
}

struct val out_end(struct run *r, struct out *o)
{
	r->out = o->outer;
	if (o->p && r->mem->at == o->p + o->cap)
		r->mem->at = o->p + o->n;
	return val_strn(o->p ? o->p : "", o->n);
}

static void put_lit(struct run *r, const char *s)
{
	out_put(r, s, strlen(s));
}

/* --- repr --- */

static void print_repr(struct run *r, struct val v);

static void repr_char(struct run *r, uint32_t c, const char *p, size_t n, char quote)
{
	char buf[12];
	int m;

	if (c == (unsigned char)quote || c == '\\')
		m = sprintf(buf, "\\%c", (char)c);
	else if (c == '\n' || c == '\r' || c == '\t')
		m = sprintf(buf, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
	else if (c < 0x20 || c == 0x7f || (c > 0x7f && c < 0x100 && !(uni_flags(c) & U_PRINTABLE)))
		m = sprintf(buf, "\\x%02x", c);
	else if (c < 0x7f || uni_flags(c) & U_PRINTABLE)
		return out_put(r, p, n);
	else
		m = sprintf(buf, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
	out_put(r, buf, (size_t)m);
}

static void repr_text(struct run *r, struct val v)
{
	const char *p = v.s, *end = p + v.n;
	char quote = memchr(p, '\'', v.n) && !memchr(p, '"', v.n) ? '"' : '\'';

	run_step_bytes(r, (size_t)v.n * 8);
	if (v.f & F_MARKUP)
		put_lit(r, "Markup(");
	out_put(r, &quote, 1);
	while (p < end) {
		const char *from = p;
		uint32_t c = utf8_next(&p);

		while (c >= 0x20 && c < 0x7f && c != (unsigned char)quote && c != '\\' && p < end &&
		       (unsigned char)*p < 0x7f && (unsigned char)*p >= 0x20 && *p != quote && *p != '\\')
			p++;
		repr_char(r, c, from, (size_t)(p - from), quote);
	}
	out_put(r, &quote, 1);
	if (v.f & F_MARKUP)
		put_lit(r, ")");
}

static void repr_items(struct run *r, struct val v)
{
	put_lit(r, v.t == V_LIST ? "[" : "(");
	for (uint32_t i = 0; i < v.n; i++) {
		if (i)
			put_lit(r, ", ");
		print_repr(r, val_force(r, &v.at[i]));
	}
	put_lit(r, v.t == V_LIST ? "]" : v.n == 1 ? ",)" : ")");
}

static void repr_dict(struct run *r, const struct dict *d)
{
	put_lit(r, "{");
	for (uint32_t i = 0; i < d->n; i++) {
		if (i)
			put_lit(r, ", ");
		print_repr(r, d->at[i].k);
		put_lit(r, ": ");
		print_repr(r, val_force(r, &d->at[i].v));
	}
	put_lit(r, "}");
}

static void repr_view(struct run *r, struct val v)
{
	struct val e;

	put_lit(r, v.x == 'k' ? "dict_keys([" : v.x == 'v' ? "dict_values([" : "dict_items([");
	for (struct iter it = iter_new(r, v); iter_next(r, &it, &e);) {
		if (it.at > 1)
			put_lit(r, ", ");
		print_repr(r, e);
	}
	put_lit(r, "])");
}

static void print_other(struct run *r, struct val v)
{
	char buf[100];

	switch (v.t) {
	case V_RANGE:
		snprintf(buf, sizeof(buf), v.range->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
			 (long long)v.range->start, (long long)v.range->stop, (long long)v.range->step);
		return put_lit(r, buf);
	case V_VIEW:
		return repr_view(r, v);
	case V_NS:
		put_lit(r, "<Namespace ");
		repr_dict(r, v.dict);
		return put_lit(r, ">");
	case V_LOOP:
		snprintf(buf, sizeof(buf), "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
			 (long long)loop_length(r, v.loop));
		return put_lit(r, buf);
	case V_MACRO:
		if (v.macro->node->kind != N_MACRO)
			return put_lit(r, "<Macro anonymous>");
		put_lit(r, "<Macro ");
		print_repr(r, val_strn(v.macro->node->name.p, v.macro->node->name.n));
		return put_lit(r, ">");
	default:
		run_unsure(r, "the text of a %s is an address", val_type_name(v));
	}
}

static void print_repr(struct run *r, struct val v)
{
	char buf[32];

	if (++r->depth > RUN_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "values nested too deep");
	run_step(r, 1);
	switch (v.t) {
	case V_UNDEF:
	case V_MISSING:
		put_lit(r, "Undefined");
		break;
	case V_NONE:
		put_lit(r, "None");
		break;
	case V_BOOL:
		put_lit(r, v.i ? "True" : "False");
		break;
	case V_INT:
		out_put(r, buf, (size_t)sprintf(buf, "%lld", (long long)v.i));
		break;
	case V_BIG:
		out_put(r, v.s, v.n);
		break;
	case V_FLOAT:
		out_put(r, buf, number_repr(v.d, buf));
		break;
	case V_STR:
		repr_text(r, v);
		break;
	case V_LIST:
	case V_TUPLE:
		repr_items(r, v);
		break;
	case V_DICT:
		repr_dict(r, v.dict);
		break;
	default:
		print_other(r, v);
	}
	r->depth--;
}

void val_print(struct run *r, struct val v)
{
	if (v.t == V_STR)
		out_put(r, v.s, v.n);
	else if (v.t != V_UNDEF)
		print_repr(r, v);
}

struct val val_repr(struct run *r, struct val v)
{
	struct out o;

	out_capture(r, &o);
	print_repr(r, v);
	return out_end(r, &o);
}

struct val val_to_str(struct run *r, struct val v)
{
	if (v.t == V_STR) {
		v.f &= (uint8_t)~F_MARKUP;
		return v;
	}
	return v.t == V_UNDEF ? val_lit("") : val_repr(r, v);
}

struct val val_soft_str(struct run *r, struct val v)
{
	return v.t == V_STR ? v : val_to_str(r, v);
}

/* --- JSON --- */

static char *json_escape(char *to, uint32_t c)
{
	static const char named[] = "btn\0fr", hex[] = "0123456789abcdef";

	*to++ = '\\';
	if (c == '"' || c == '\\') {
		*to++ = (char)c;
		return to;
	}
	if (c >= 8 && c <= 13 && named[c - 8]) {
		*to++ = named[c - 8];
		return to;
	}
	*to++ = 'u';
	for (int shift = 12; shift >= 0; shift -= 4)
		*to++ = hex[c >> shift & 15];
	return to;
}

static inline bool json_plain(unsigned char c, bool ascii)
{
	return c >= 0x20 && c != '"' && c != '\\' && (!ascii || c < 0x7f);
}

static void json_text(struct run *r, struct val v, bool ascii)
{
	const char *p = v.s, *end = p + v.n;

	run_step_bytes(r, v.n);
	put_lit(r, "\"");
	while (p < end) {
		/* No character becomes more than 12 bytes, nor a byte more than 6. */
		char *room = out_room(r, OUT_ROOM), *to = room;
		const char *stop = end - p > OUT_ROOM / 6 - 4 ? p + OUT_ROOM / 6 - 4 : end;

		while (p < stop) {
			uint32_t c;

			if (json_plain((unsigned char)*p, ascii)) {
				*to++ = *p++;
				continue;
			}
			c = (unsigned char)*p < 0x80 ? (unsigned char)*p++ : utf8_next(&p);
			if (c >= 0x10000) {
				to = json_escape(to, 0xd800 + ((c - 0x10000) >> 10));
				c = 0xdc00 + ((c - 0x10000) & 0x3ff);
			}
			to = json_escape(to, c);
		}
		out_commit(r, (size_t)(to - room));
	}
	put_lit(r, "\"");
}

static void json_float(struct run *r, double d)
{
	char buf[32];

	if (isfinite(d))
		out_put(r, buf, number_repr(d, buf));
	else
		put_lit(r, isnan(d) ? "NaN" : d < 0 ? "-Infinity" : "Infinity");
}

static void json_key(struct run *r, struct val k, const struct json_style *s)
{
	if (k.t == V_STR)
		return json_text(r, k, s->ascii);
	if (k.t < V_NONE || k.t > V_FLOAT)
		run_raise(r, "keys must be str, int, float, bool or None, not %s", val_type_name(k));
	put_lit(r, "\"");
	if (k.t == V_FLOAT)
		json_float(r, k.d);
	else if (k.t == V_NONE)
		put_lit(r, "null");
	else if (k.t == V_BOOL)
		put_lit(r, k.i ? "true" : "false");
	else
		print_repr(r, k);
	put_lit(r, "\"");
}

static void newline(struct run *r, const struct json_style *s, unsigned depth)
{
	if (!s->pretty)
		return;
	put_lit(r, "\n");
	while (depth--)
		out_put(r, s->indent.p, s->indent.n);
}

static const uint32_t *sorted_members(struct run *r, const struct dict *d)
{
	struct val keys = val_list(r, V_LIST, d->n);

	for (uint32_t i = 0; i < d->n; i++)
		keys.at[i] = d->at[i].k;
	return val_sort_order(r, keys.at, keys.n, false);
}

static void json_value_at(struct run *r, struct val v, const struct json_style *s, unsigned depth);

static void json_items(struct run *r, struct val v, const struct json_style *s, unsigned depth)
{
	if (v.n == 0)
		return put_lit(r, "[]");
	put_lit(r, "[");
	for (uint32_t i = 0; i < v.n; i++) {
		if (i)
			out_put(r, s->item_sep.p, s->item_sep.n);
		newline(r, s, depth + 1);
		json_value_at(r, val_force(r, &v.at[i]), s, depth + 1);
	}
	newline(r, s, depth);
	put_lit(r, "]");
}

static void json_members(struct run *r, const struct dict *d, const struct json_style *s, unsigned depth)
{
	const uint32_t *order = s->sort ? sorted_members(r, d) : NULL;

	if (d->n == 0)
		return put_lit(r, "{}");
	put_lit(r, "{");
	for (uint32_t i = 0; i < d->n; i++) {
		struct pair *p = &d->at[order ? order[i] : i];

		if (i)
			out_put(r, s->item_sep.p, s->item_sep.n);
		newline(r, s, depth + 1);
		json_key(r, p->k, s);
		out_put(r, s->key_sep.p, s->key_sep.n);
		json_value_at(r, val_force(r, &p->v), s, depth + 1);
	}
	newline(r, s, depth);
	put_lit(r, "}");
}

static void json_value_at(struct run *r, struct val v, const struct json_style *s, unsigned depth)
{
	if (depth > VALUE_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "values nested too deep");
	run_step(r, 1);
	switch (v.t) {
	case V_NONE:
		return put_lit(r, "null");
	case V_BOOL:
		return put_lit(r, v.i ? "true" : "false");
	case V_INT:
	case V_BIG:
		return print_repr(r, v);
	case V_FLOAT:
		return json_float(r, v.d);
	case V_STR:
		return json_text(r, v, s->ascii);
	case V_LIST:
	case V_TUPLE:
		return json_items(r, v, s, depth);
	case V_DICT:
		return json_members(r, v.dict, s, depth);
	default:
		run_raise(r, "a %s is not JSON serializable", val_type_name(v));
	}
}

void val_print_json(struct run *r, struct val v, const struct json_style *s)
{
	json_value_at(r, v, s, 0);
}

/* --- HTML --- */

struct val val_escape(struct run *r, struct val v)
{
	static const char from[] = "&<>'\"", *const to[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
	struct out o;
	const char *p, *end, *run_;

	if (v.t == V_STR && v.f & F_MARKUP)
		return v;
	v = val_to_str(r, v);
	run_step_bytes(r, (size_t)v.n * 4);
	out_capture(r, &o);
	for (p = run_ = v.s, end = p + v.n; p < end; p++) {
		const char *found = *p ? strchr(from, *p) : NULL;

		if (!found)
			continue;
		out_put(r, run_, (size_t)(p - run_));
		put_lit(r, to[found - from]);
		run_ = p + 1;
	}
	out_put(r, run_, (size_t)(end - run_));
	v = out_end(r, &o);
	v.f = F_MARKUP;
	return v;
}
