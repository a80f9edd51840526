/* SPDX-License-Identifier: Apache-2.0
 * Private to the template interpreter and the rules of engines (chat.c).
 *
 * Values are 16 bytes and immutable, but for namespaces, loops, generators and the like, which are pointers to what
 * changes. Lists and strings are a pointer and a length, so a slice is a view of what it was cut from. Everything lives
 * in the arena of the rendering; nothing is ever freed alone, so an error is a longjmp to template_run without any
 * unwinding, and functions return values, not codes.
 *
 * A name was given its place when the template was compiled (template_scope.c): a slot of the activation of the
 * function that it belongs to, so many activations up. Functions are what they are in the Python that jinja2 makes of
 * the template: the template itself, a macro, a call block, a recursive loop, a loop's condition.
 *
 *   template_lex ──► template_parse, _expr ──► template_check ──► template_scope ──► template_exec, _eval
 *                                                                                    │ call, filter, test, method
 *                                                                                    └► value, dict, iter, print, text
 */
#ifndef KVS_MODEL_TEMPLATE_INT_H
#define KVS_MODEL_TEMPLATE_INT_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdnoreturn.h>

#include "http/json.h"
#include "model/template.h"

#define MEM_ALIGN	8
#define RUN_DEPTH	1500 /* evaluations inside one another */
#define CALL_DEPTH	100  /* macros inside one another */
#define VALUE_DEPTH	200  /* lists in lists, printed or compared */
#define SOURCE_MAX	(1u << 20)
#define EXPR_DEPTH	100
#define STATEMENT_DEPTH 60
#define RANGE_MAX	100000

/* --- memory --- */

struct template_mem_chunk;
struct template_mem {
	struct template_mem_chunk *chunks, *spare;
	char *at, *end;
	size_t total, limit;
};

void *template_mem_get(struct template_mem *a, size_t n);   /* aligned; NULL: no memory, or the limit */
char *template_mem_bytes(struct template_mem *a, size_t n); /* not aligned */
/* Make the <n> bytes that end the arena's last piece <more> longer, in place. */
bool template_mem_grow(struct template_mem *a, const void *p, size_t n, size_t more);
void template_mem_reset(struct template_mem *a); /* keeps up to 8 MiB */
void template_mem_free(struct template_mem *a);

/* --- values --- */

enum vtype {
	V_MISSING, /* a slot that nothing was put into */
	V_UNDEF,
	V_NONE,
	V_BOOL,
	V_INT,
	V_BIG, /* an integer beyond 64 bits: its digits */
	V_FLOAT,
	V_STR,
	V_LIST,
	V_TUPLE,
	V_DICT,
	V_RANGE,
	V_VIEW, /* dict.keys(), .values(), .items() */
	V_GEN,	/* a generator: can be walked once */
	V_NS,
	V_LOOP,
	V_MACRO,
	V_FUNC,
	V_METHOD,
	V_CYCLER,
	V_JOINER,
	V_TYPES,
};

enum {
	F_MARKUP = 1, /* V_STR: |safe */
	F_LONE = 2,   /* V_STR: of JSON, with half of a surrogate pair: see val_force */
	F_ASCII = 4,  /* V_STR: known to have no byte above 0x7f */
	F_GROUP = 8,  /* V_TUPLE: of groupby: .grouper, .list */
	F_UNSAFE = 1, /* V_UNDEF: an attribute that the sandbox hides */
	F_ATTR = 2,   /* V_UNDEF: of an attribute, not of a name */
	F_HINT = 4,   /* V_UNDEF: s is the whole message */
};

struct val {
	uint8_t t, f;
	uint16_t x; /* V_VIEW: which */
	uint32_t n; /* bytes, items */
	union {
		int64_t i;
		double d;
		const char *s;
		struct val *at;
		struct dict *dict; /* V_DICT, V_VIEW, V_NS */
		struct range *range;
		struct gen *gen;
		struct loop *loop;
		struct macro *macro;
		const struct func *func;
		struct bound *bound;
		struct cycler *cycler;
	};
};

struct pair {
	struct val k, v;
};

struct dict {
	uint32_t n, cap;
	struct pair *at;
	uint32_t *index, mask; /* hash → place + 1, from DICT_PLAIN members on */
};
#define DICT_PLAIN 8

struct range {
	int64_t start, stop, step;
	int64_t n;
};

struct iter {
	uint8_t kind;
	uint32_t at, n;
	struct val of;
};

enum gen_kind {
	GEN_ITEMS,
	GEN_MAP,
	GEN_MAP_ATTR,
	GEN_SELECT,
	GEN_UNIQUE,
	GEN_REVERSED,
	GEN_BATCH,
	GEN_SLICE,
	GEN_COND
};

/* What calls carry. Keywords stand behind the <n> positional ones. */
struct args {
	struct val *at;
	unsigned n, nkw;
	const struct str *names; /* of keywords */
};

struct gen {
	uint8_t kind;
	bool started, done, negate, by_attr;
	struct iter src;
	struct val value, extra, fill; /* what it is made of; the attribute, seen keys…; default */
	const struct filter *filter;
	const struct test *test;
	struct args args;
	int64_t count;
	const struct node *node; /* GEN_COND: the loop */
	struct act *act;
};

struct loop {
	struct iter iter;
	int64_t index0, length; /* length -1: not asked for yet */
	bool has_after;
	struct val after, current, before, changed;
	const struct node *recurse;
	struct act *act; /* of the recursive loop's surroundings */
	int depth0;
};

struct act {
	struct act *up;
	struct val slot[];
};

struct macro {
	const struct node *node;
	struct act *act;
};

struct bound {
	struct val self;
	const struct method *method;
};

struct cycler {
	struct val items; /* V_TUPLE; V_JOINER: the separator */
	uint32_t pos;
};

/* --- the tree --- */

enum kind {
	N_OUTPUT,
	N_DATA,
	N_FOR,
	N_IF,
	N_MACRO,
	N_CALLBLOCK,
	N_FILTERBLOCK,
	N_WITH,
	N_ASSIGN,
	N_ASSIGNBLOCK,
	N_BREAK,
	N_CONTINUE,
	N_NAME,
	N_NSREF,
	N_CONST,
	N_TUPLE,
	N_LIST,
	N_DICT,
	N_PAIR,
	N_COND,
	N_FILTER,
	N_TEST,
	N_CALL,
	N_ITEM,
	N_ATTR,
	N_SLICE,
	N_CONCAT,
	N_COMPARE,
	N_OPERAND,
	N_BINARY,
	N_UNARY,
	N_AND,
	N_OR,
	N_NOT,
	N_KEYWORD,
};

enum ctx { CTX_LOAD, CTX_STORE, CTX_PARAM };

/* Where a name is: <up> functions out, <slot> there. */
struct ref {
	uint16_t up, slot;
};

/* What happens to a slot when a frame is entered. */
struct load {
	uint8_t how; /* enum load_how */
	uint16_t slot;
	struct ref from; /* LOAD_ALIAS */
	uint16_t global; /* LOAD_RESOLVE */
};
enum load_how { LOAD_PARAM, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEFINED };

struct frame {
	const struct load *load;
	uint16_t n;
};

/* A function of the template: slots, and whether something inside may outlive the call. */
struct fn {
	uint16_t slots;
	bool captured;
};

enum { /* kid[] of each kind, in the order of jinja2's fields, which decides in what order names are seen */
       K0,
       K1,
       K2,
       K3,
       K4,
       KIDS
};
/* OUTPUT: nodes. FOR: target iter body else test. IF: test body elif else. MACRO: args defaults body.
 * CALLBLOCK: call args defaults body. FILTERBLOCK: body filter. WITH: targets values body. ASSIGN: target node.
 * ASSIGNBLOCK: target filter body. TUPLE, LIST, DICT, CONCAT: items. PAIR: key value. COND: test then else.
 * FILTER, TEST, CALL: node args kwargs dyn_args dyn_kwargs. ITEM: node arg. ATTR: node. SLICE: start stop step.
 * COMPARE: expr ops. OPERAND: expr. BINARY, AND, OR: left right. UNARY, NOT: node. KEYWORD: value. */

struct node {
	uint8_t kind, op, ctx, flags;
	uint16_t height; /* of the expression's tree */
	uint16_t nargs;	 /* FILTER, TEST, CALL: positional, MACRO: parameters */
	uint32_t pos;
	struct ref ref;
	struct node *next, *kid[KIDS];
	union {
		struct str name;
		struct val val;
	};
	union {
		const struct filter *filter;
		const struct test *test;
		const struct method *method; /* ATTR: the first of that name */
		const struct plan *plan;
	};
	const struct str *kwnames; /* CALL, FILTER, TEST; ref.slot: how many */
};

enum {
	NF_PARAM = 1,	  /* NAME: of a parameter, which is there while its frame is */
	NF_RECURSIVE = 2, /* FOR */
	NF_EXTENDED = 4,  /* FOR: has the variable loop */
	NF_CALLER = 8,	  /* MACRO, CALLBLOCK: these names are used in it */
	NF_KWARGS = 16,
	NF_VARARGS = 32,
	NF_GENERATION = 64, /* CALLBLOCK: prints its body */
};

/* What the scopes say about a statement. */
struct plan {
	struct frame frame, els, test; /* FOR: of the body, of else, of the condition */
	struct fn fn;		       /* MACRO, CALLBLOCK, recursive FOR */
	struct fn test_fn;
	struct node *test_target;	    /* the loop's target, for the condition's function */
	struct ref loop;		    /* FOR: the variable; MACRO: its own name */
	struct ref caller, kwargs, varargs; /* MACRO */
};

struct template
{
	atomic_uint refs;
	struct template_mem mem;
	struct str source; /* normalized */
	struct node *body;
	struct frame frame;
	struct fn fn;
	struct str *globals; /* names to look up when a rendering begins */
	unsigned nglobals;
	bool parts;	   /* chat.h: content is a list of parts */
	uint32_t parts_by; /* … as long as no engine lacks these rules */
	bool says_developer, says_content;
};

/* --- compiling --- */

enum tok {
	T_EOF,
	T_DATA,
	T_VAR,
	T_VAR_END,
	T_BLOCK,
	T_BLOCK_END,
	T_NAME,
	T_STRING,
	T_INT,
	T_FLOAT,
	T_ADD,
	T_SUB,
	T_DIV,
	T_FLOORDIV,
	T_MUL,
	T_MOD,
	T_POW,
	T_TILDE,
	T_LBRACKET,
	T_RBRACKET,
	T_LPAREN,
	T_RPAREN,
	T_LBRACE,
	T_RBRACE,
	T_EQ,
	T_NE,
	T_GT,
	T_GE,
	T_LT,
	T_LE,
	T_ASSIGN,
	T_DOT,
	T_COLON,
	T_PIPE,
	T_COMMA,
	T_SEMICOLON,
};

struct token {
	uint8_t type;
	uint32_t pos;
	struct str text; /* data, name; string: its value */
	struct val num;
};

struct compiler {
	struct template *t;
	struct template_mem *mem;
	struct token *tok; /* of lexing; ends with T_EOF */
	uint32_t ntok, cap, at;
	unsigned depth, stmts;
	uint64_t work; /* of template_scope */
	struct template_error *err;
	jmp_buf *fail;
};

static inline int json_hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}
noreturn void compile_refuse(struct compiler *c, uint32_t pos, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void *compile_get(struct compiler *c, size_t n); /* zeroed */
void template_lex(struct compiler *c);
void template_parse(struct compiler *c);
struct node *node_new(struct compiler *c, enum kind kind, uint32_t pos);
struct node *parse_expression(struct compiler *c, bool with_cond);
struct node *parse_primary(struct compiler *c, bool with_namespace);
/* <end>: a name that ends the tuple, {NULL}: none */
struct node *parse_tuple(struct compiler *c, bool simplified, bool with_cond, struct str end, bool parens,
			 bool with_namespace);
struct node *parse_filter(struct compiler *c, struct node *of, bool inline_first);
void parse_signature(struct compiler *c, struct node *n, unsigned args, unsigned defaults);
struct node *parse_target(struct compiler *c, bool name_only, struct str end, bool with_namespace);
void template_check(struct compiler *c);
void template_scope(struct compiler *c);
bool tok_is(const struct token *t, const char *name);
const struct token *tok_expect(struct compiler *c, enum tok type);
bool tok_skip(struct compiler *c, enum tok type);
bool tok_skip_name(struct compiler *c, const char *name);
static inline const struct token *tok_now(const struct compiler *c)
{
	return &c->tok[c->at];
}
static inline const struct token *tok_next(struct compiler *c)
{
	const struct token *t = &c->tok[c->at];

	c->at += c->at + 1 < c->ntok;
	return t;
}
const char *tok_describe(const struct token *t, char buf[48]);

/* Every node below <n>, each before its own, in jinja2's order; stops when <visit> says so. */
bool node_walk(struct node *n, bool (*visit)(struct node *n, void *ctx), void *ctx);
bool template_loops_over_parts(struct compiler *c);

/* --- running --- */

struct out {
	struct out *outer;
	char *p;
	size_t n, cap;
	bool sink;
};

struct run {
	const struct template *t;
	struct template_mem *mem;   /* of the rendering */
	struct template_mem *slots; /* of activations that end with their call */
	struct act *act;
	struct val *globals;
	struct out *out, main_out;
	struct template_sink sink;
	uint64_t steps, output, output_max;
	unsigned depth, calls;
	const struct node *where;
	int64_t now;
	bool utc;
	bool plain; /* without what transformers adds to jinja2: names of functions */
	enum template_result result;
	struct template_error *err;
	jmp_buf *fail;
};

struct template_work {
	struct template_mem mem, slots;
	char buf[8192]; /* of the output */
};

noreturn void run_fail(struct run *r, enum template_result why, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
#define run_raise(r, ...)  run_fail(r, TEMPLATE_RAISED, __VA_ARGS__)
#define run_unsure(r, ...) run_fail(r, TEMPLATE_UNSURE, __VA_ARGS__)
void *run_get(struct run *r, size_t n);
char *run_bytes(struct run *r, size_t n);
void run_limit(struct run *r);
static inline void run_step(struct run *r, uint64_t n)
{
	if (r->steps < n)
		run_limit(r);
	r->steps -= n;
}
static inline void run_step_bytes(struct run *r, size_t n)
{
	run_step(r, n / 64 + 1);
}

/* Begin (the arena is the work's, reset), do what <run> does, catch what fails. */
int template_run(struct template_work *w, const struct template *t, const struct template_in *in,
		 struct template_sink sink, struct template_error *err, void (*body)(struct run *r, void *ctx),
		 void *ctx);
/* Print the template with these variables; V_DICT. */
void run_template(struct run *r, struct val variables);

void out_put(struct run *r, const char *p, size_t n);
/* Room for <n> bytes, at most OUT_ROOM; then say how many were written. */
#define OUT_ROOM 4096
char *out_room(struct run *r, size_t n);
void out_commit(struct run *r, size_t n);
void out_capture(struct run *r, struct out *o);
struct val out_end(struct run *r, struct out *o);

/* template_value.c */
static inline struct val val_of(enum vtype t)
{
	return (struct val){ .t = (uint8_t)t };
}
static inline struct val val_bool(bool b)
{
	return (struct val){ .t = V_BOOL, .i = b };
}
static inline struct val val_int(int64_t i)
{
	return (struct val){ .t = V_INT, .i = i };
}
static inline struct val val_float(double d)
{
	return (struct val){ .t = V_FLOAT, .d = d };
}
static inline struct val val_strn(const char *p, size_t n)
{
	return (struct val){ .t = V_STR, .n = (uint32_t)n, .s = p };
}
#define val_lit(lit) ((struct val){ .t = V_STR, .f = F_ASCII, .n = sizeof(lit) - 1, .s = (lit) })
static inline struct str val_str(struct val v)
{
	return (struct str){ v.s, v.n };
}
static inline bool is_int(struct val v) /* bool is one */
{
	return v.t == V_INT || v.t == V_BOOL;
}
static inline bool is_str(struct val v)
{
	return v.t == V_STR;
}
static inline bool val_is(struct val v, struct str s)
{
	return v.t == V_STR && str_eq(val_str(v), s);
}
struct val undef_name(struct str name);
struct val undef_attr(struct str name);
struct val undef_hint(const char *message);
noreturn void undef_used(struct run *r, struct val v);
const char *val_type_name(struct val v);
/* For what comes out of JSON text: a string must have a text. */
noreturn void string_without_text(struct run *r);
static inline struct val val_force(struct run *r, struct val *v)
{
	if (v->t == V_STR && v->f & F_LONE)
		string_without_text(r);
	return *v;
}
bool val_truth(struct run *r, struct val v);
bool val_equal(struct run *r, struct val a, struct val b);
/* <, <=, >, >= : 'l' 'L' 'g' 'G' */
bool val_ordered(struct run *r, char op, struct val a, struct val b);
bool val_contains(struct run *r, struct val item, struct val in);
bool val_hashable(struct val v);
uint64_t val_hash(struct run *r, struct val v);
int64_t val_len(struct run *r, struct val v); /* or raises */
bool val_has_len(struct val v);
struct val val_list(struct run *r, enum vtype t, size_t n);
struct val val_item(struct run *r, struct val of, struct val key);			    /* environment.getitem */
struct val val_attr(struct run *r, struct val of, struct str name, const struct method *m); /* environment.getattr */
struct val val_slice(struct run *r, struct val of, const struct val *start, const struct val *stop,
		     const struct val *step_);
struct val val_item_at(struct run *r, struct val of, int64_t i); /* of a sequence, i in range */
struct val val_path(struct run *r, struct val of, struct val attribute,
		    const struct val *missing); /* make_attrgetter */

/* template_dict.c */
struct val dict_new(struct run *r, uint32_t cap);
struct val *dict_find(struct run *r, const struct dict *d, struct val key); /* NULL: not in it */
struct val *dict_find_str(struct run *r, const struct dict *d, struct str key);
void dict_put(struct run *r, struct dict *d, struct val key, struct val v);
static inline void dict_put_str(struct run *r, struct dict *d, struct str key, struct val v)
{
	dict_put(r, d, val_strn(key.p, key.n), v);
}

/* template_iter.c */
bool val_iterable(struct val v);
struct iter iter_new(struct run *r, struct val v); /* or raises */
bool iter_next(struct run *r, struct iter *it, struct val *ret);
struct val val_to_list(struct run *r, struct val v, enum vtype t);
struct val gen_new(struct run *r, enum gen_kind kind, struct val of);
/* environment of loops */
bool loop_next(struct run *r, struct loop *l, struct val *ret);
struct val loop_attr(struct run *r, struct loop *l, struct str name);
int64_t loop_length(struct run *r, struct loop *l);

/* template_print.c */
struct val val_to_str(struct run *r, struct val v);   /* str() */
struct val val_soft_str(struct run *r, struct val v); /* keeps Markup */
void val_print(struct run *r, struct val v);	      /* str(), to the output */
struct val val_repr(struct run *r, struct val v);
unsigned number_repr(double d, char buf[32]);
struct json_style {
	bool ascii, sort, pretty;
	struct str indent, item_sep, key_sep;
};
void val_print_json(struct run *r, struct val v, const struct json_style *s);
struct val val_escape(struct run *r, struct val v); /* Markup */

/* template_number.c */
struct val number_parse(struct run *r, struct str s, int base, bool *ret_ok);
bool number_parse_float(struct str s, double *ret);
struct val val_binary(struct run *r, char op, struct val a, struct val b);
struct val val_unary(struct run *r, char op, struct val a);
struct val val_big(struct run *r, struct str digits, bool negative);
int number_compare(struct val a, struct val b); /* -1 0 1, 2: unordered */
double val_double(struct run *r, struct val v);

/* template_text.c: strings by code points */
uint32_t utf8_next(const char **p);
bool text_ascii(struct val v);
int64_t text_len(struct run *r, struct val s);
size_t text_offset(struct run *r, struct val s, int64_t chars);				/* bytes of the first <chars> */
struct val text_strip(struct run *r, struct val s, const struct val *chars, int sides); /* 1 left, 2 right */
struct val text_case(struct run *r, struct val s, char how); /* u l c(apitalize) t(itle) s(wap) f(old) */
struct val text_replace(struct run *r, struct val s, struct val from, struct val to, int64_t count);
struct val text_split(struct run *r, struct val s, const struct val *sep, int64_t max, bool right);
struct val text_lines(struct run *r, struct val s, bool keep);
struct val text_join(struct run *r, struct val sep, struct val items);
struct val text_concat(struct run *r, struct val a, struct val b);
struct val text_repeat(struct run *r, struct val s, int64_t n);
struct val text_pad(struct run *r, struct val s, int64_t width, struct val fill, char how); /* l r c z */
struct val text_reverse(struct run *r, struct val s);
const char *text_find(struct str s, struct str what);
struct val text_percent(struct run *r, struct val format, struct val args);
struct val text_format(struct run *r, struct val format, const struct args *a);

/* template_unicode.c */
enum {
	U_SPACE = 1,
	U_PRINTABLE = 2,
	U_UPPER = 4,
	U_LOWER = 8,
	U_TITLE = 16,
	U_ALPHA = 32,
	U_DECIMAL = 64,
	U_DIGIT = 128,
	U_NUMERIC = 256,
	U_IGNORABLE = 512
};
unsigned uni_flags(uint32_t c);
unsigned uni_case(uint32_t c, char how, uint32_t out[3]); /* u l t f: how many code points */

/* calls */
struct param {
	const char *names; /* "a,b,c" for keywords; NULL: positional only */
	uint8_t min, max;
};
#define ARGS_MAX 8
#define ANY_ARGS 255
typedef struct val call_fn(struct run *r, struct val self, struct val *arg, const struct args *a);
struct filter {
	const char *name;
	struct param p;
	call_fn *run; /* NULL: known and not supported */
};
struct test {
	const char *name;
	struct param p;
	call_fn *run;
};
struct method {
	const char *name;
	uint32_t types; /* 1 << V_… */
	struct param p;
	call_fn *run; /* NULL: not supported */
	bool changes; /* the sandbox hides it */
	bool value;   /* is a value, not a function */
};
struct func {
	const char *name;
	call_fn *run;
};
const struct filter *template_filter_find(struct str name);
/* Print what the filter gives without making it a string first; false: it is none of those that can. */
bool template_filter_print(struct run *r, const struct filter *f, struct val v, const struct args *a);
const struct test *template_test_find(struct str name);
const struct method *template_method_find(struct str name);			   /* the first of that name */
const struct method *template_method_of(const struct method *first, enum vtype t); /* NULL: such a value has none */
bool template_func_find(struct str name, struct val *ret);
/* Put the arguments into <slot> by the names; V_MISSING where there is none. Raises. */
void args_bind(struct run *r, const char *what, const struct param *p, const struct args *a, struct val slot[ARGS_MAX]);
/* Would it? NULL, or what is wrong. */
const char *args_check(const struct param *p, unsigned n, const struct str *kw, unsigned nkw);
struct val filter_call(struct run *r, const struct filter *f, struct val v, const struct args *a);
bool test_call(struct run *r, const struct test *t, struct val v, const struct args *a);
struct val val_call(struct run *r, struct val callee, const struct args *a);
struct val macro_call(struct run *r, const struct macro *m, const struct args *a, bool capture);
struct val loop_call(struct run *r, struct loop *l, struct val of);
uint32_t *val_sort_order(struct run *r, const struct val *key, uint32_t n, bool reverse);
struct val args_kwargs(struct run *r, const struct args *a); /* as a dict */

/* template_eval.c, template_exec.c */
struct val node_eval(struct run *r, const struct node *n);
struct args node_args(struct run *r, const struct node *n);
struct args node_call_args(struct run *r, const struct node *n, const struct val *caller);
void node_exec(struct run *r, const struct node *body);
enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };
enum flow node_exec_body(struct run *r, const struct node *body);
void node_assign(struct run *r, const struct node *target, struct val v);
void frame_enter(struct run *r, const struct frame *f);
void frame_leave(struct run *r, const struct frame *f);
struct act *act_new(struct run *r, const struct fn *fn, struct act *up);
struct val *slot_of(struct run *r, struct ref ref);
bool cond_next(struct run *r, struct gen *g, struct val *ret);

/* template_json.c: values from JSON text, which must stay where it is */
struct json_in {
	struct json j;
	struct buf text; /* of strings */
	size_t start;	 /* there, of the value read last */
};
void json_in_start(struct run *r, struct json_in *in, struct str text);
int json_in_member(struct json_in *in, struct json_val *ret_key, struct json_val *ret_val); /* as json_member */
struct val json_to_val(struct run *r, struct json_in *in, const struct json_val *v);
struct val json_text_to_val(struct run *r, struct str text, bool *ret_ok);

#endif
