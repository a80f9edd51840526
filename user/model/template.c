/* SPDX-License-Identifier: Apache-2.0 */
#include "model/template.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/template_int.h"

#define COMPILE_MEMORY (64u << 20)

const struct template_limits template_limits_default = { .steps = 8u << 20, .output = 64u << 20, .memory = 256u << 20 };

/* --- compiling --- */

static bool utf8_valid(struct str s)
{
	const char *p = s.p, *end = p + s.n;

	while (p < end) {
		unsigned char c = (unsigned char)*p;
		int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
		uint32_t code;

		if (n == 0 || end - p < n)
			return false;
		for (int i = 1; i < n; i++)
			if (((unsigned char)p[i] & 0xc0) != 0x80)
				return false;
		code = utf8_next(&p);
		if ((n == 3 && code < 0x800) || (n == 4 && (code < 0x10000 || code > 0x10ffff)) ||
		    (code >= 0xd800 && code < 0xe000))
			return false;
	}
	return true;
}

static void compile_all(struct compiler *c)
{
	struct template *t = c->t;

	if (t->source.n > SOURCE_MAX)
		compile_refuse(c, 0, "the template is longer than %u bytes", SOURCE_MAX);
	if (!utf8_valid(t->source))
		compile_refuse(c, 0, "the template is not UTF-8");
	template_lex(c);
	template_parse(c);
	t->parts = template_loops_over_parts(c);
	template_check(c);
	template_scope(c);
	t->says_developer = memmem(t->source.p, t->source.n, "\"developer\"", 11) ||
			    memmem(t->source.p, t->source.n, "'developer'", 11);
	t->says_content = memmem(t->source.p, t->source.n, "content", 7);
}

static bool compile_caught(struct compiler *c)
{
	jmp_buf fail;

	c->fail = &fail;
	if (setjmp(fail)) {
		c->fail = NULL;
		return false;
	}
	compile_all(c);
	c->fail = NULL;
	return true;
}

struct template *template_compile(struct str source, struct template_error *err)
{
	struct template *t = calloc(1, sizeof(*t));
	struct compiler c = { .t = t, .err = err };
	bool ok;

	*err = (struct template_error){ 0 };
	if (!t)
		return NULL;
	atomic_init(&t->refs, 1);
	t->mem.limit = COMPILE_MEMORY;
	t->source = source.p ? source : STR("");
	c.mem = &t->mem;
	ok = compile_caught(&c);
	free(c.tok);
	if (!ok) {
		template_unref(t);
		errno = EINVAL;
		return NULL;
	}
	return t;
}

struct template *template_ref(struct template *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void template_unref(struct template *t)
{
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	template_mem_free(&t->mem);
	free(t);
}

/* --- running --- */

struct template_work *template_work_new(void)
{
	return calloc(1, sizeof(struct template_work));
}

void template_work_free(struct template_work *w)
{
	if (!w)
		return;
	template_mem_free(&w->mem);
	template_mem_free(&w->slots);
	free(w);
}

static void place_of(struct run *r)
{
	const char *s = r->t->source.p;

	if (!r->where)
		return;
	r->err->line = r->err->col = 1;
	for (uint32_t i = 0; i < r->where->pos; i++) {
		if (s[i] == '\n') {
			r->err->line++;
			r->err->col = 1;
		} else if (((unsigned char)s[i] & 0xc0) != 0x80) {
			r->err->col++;
		}
	}
}

void run_fail(struct run *r, enum template_result why, const char *fmt, ...)
{
	va_list ap;

	place_of(r);
	va_start(ap, fmt);
	vsnprintf(r->err->text, sizeof(r->err->text), fmt, ap);
	va_end(ap);
	r->result = why;
	longjmp(*r->fail, 1);
}

void run_limit(struct run *r)
{
	r->steps = 0;
	run_fail(r, TEMPLATE_LIMIT, "more steps than the limit");
}

void *run_get(struct run *r, size_t n)
{
	void *p = template_mem_get(r->mem, n);

	if (!p)
		run_fail(r, TEMPLATE_LIMIT, "more memory than the limit");
	return p;
}

char *run_bytes(struct run *r, size_t n)
{
	char *p = template_mem_bytes(r->mem, n ? n : 1);

	if (!p)
		run_fail(r, TEMPLATE_LIMIT, "more memory than the limit");
	return p;
}

static bool is_added(struct str name)
{
	return str_eq(name, STR("raise_exception")) || str_eq(name, STR("strftime_now"));
}

void run_template(struct run *r, struct val variables)
{
	const struct template *t = r->t;

	r->globals = run_get(r, (t->nglobals + 1) * sizeof(*r->globals));
	for (unsigned i = 0; i < t->nglobals; i++) {
		struct val *v = dict_find_str(r, variables.dict, t->globals[i]);

		r->globals[i] = val_of(V_MISSING);
		if (v)
			r->globals[i] = val_force(r, v);
		else if (!r->plain || !is_added(t->globals[i]))
			template_func_find(t->globals[i], &r->globals[i]);
	}
	r->act = act_new(r, &t->fn, NULL);
	frame_enter(r, &t->frame);
	node_exec(r, t->body);
}

static void run_caught(struct run *r, void (*body)(struct run *r, void *ctx), void *ctx)
{
	jmp_buf fail;

	r->fail = &fail;
	if (!setjmp(fail)) {
		body(r, ctx);
		if (r->main_out.n && r->sink.put(r->sink.ctx, r->main_out.p, r->main_out.n))
			r->result = TEMPLATE_SINK;
	}
	r->fail = NULL;
}

int template_run(struct template_work *w, const struct template *t, const struct template_in *in,
		 struct template_sink sink, struct template_error *err, void (*body)(struct run *r, void *ctx),
		 void *ctx)
{
	const struct template_limits *l = in->limits ? in->limits : &template_limits_default;
	struct run r = {
		.t = t,
		.mem = &w->mem,
		.slots = &w->slots,
		.sink = sink,
		.steps = l->steps,
		.output_max = l->output,
		.now = in->now,
		.utc = in->utc,
		.err = err,
		.main_out = { .p = w->buf, .cap = sizeof(w->buf), .sink = true },
	};

	*err = (struct template_error){ 0 };
	w->mem.limit = w->slots.limit = l->memory;
	template_mem_reset(&w->mem);
	template_mem_reset(&w->slots);
	r.out = &r.main_out;
	run_caught(&r, body, ctx);
	return (int)r.result;
}

static void render(struct run *r, void *ctx)
{
	const struct template_in *in = ctx;
	struct val v;
	bool ok;

	v = json_text_to_val(r, in->variables, &ok);
	if (!ok || v.t != V_DICT)
		run_raise(r, "the variables are no JSON object");
	run_template(r, v);
}

int template_render(const struct template *t, struct template_work *w, const struct template_in *in,
		    struct template_sink sink, struct template_error *err)
{
	return template_run(w, t, in, sink, err, render, (void *)in);
}
