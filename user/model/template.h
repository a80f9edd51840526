/* SPDX-License-Identifier: Apache-2.0
 * Chat templates: the Jinja language as Hugging Face's transformers sets it up (trim_blocks, lstrip_blocks, loop
 * controls, generation tags, an immutable sandbox, no autoescape), compiled once and rendered into a sink.
 *
 *   t = template_compile(source, &err);                       // NULL: refused, err says what and where
 *   w = template_work_new();                                  // one per thread: the memory of its renderings
 *   r = template_render(t, w, &in, sink, &err);
 *
 * What is printed is what Python would print, byte for byte, or nothing: a construct that is not known is refused when
 * the template is compiled, also in a branch that is never taken; a value that cannot be told exactly fails the
 * rendering. A rendering that fails may have given bytes to the sink already: they mean nothing then.
 *
 * Threads: a template is immutable and shared freely, reference counted. A work belongs to one thread at a time.
 * Limits: steps, depth, output and memory are bounded; a template or request that exceeds one fails (TEMPLATE_LIMIT).
 */
#ifndef KVS_MODEL_TEMPLATE_H
#define KVS_MODEL_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct template;
struct template_work;

enum template_result {
	TEMPLATE_OK,
	TEMPLATE_RAISED, /* raise_exception, or an error that the engine would answer with 400 as well */
	TEMPLATE_LIMIT,	 /* more steps, depth, output or memory than allowed */
	TEMPLATE_UNSURE, /* an exact text cannot be promised: a number beyond 64 bits in arithmetic, a method's address…
			  */
	TEMPLATE_SINK,	 /* the sink gave up */
};

struct template_error {
	unsigned line, col; /* in the template, from 1; 0: not of a place in it */
	char text[240];
};

/* Takes bytes as they come, in pieces of any size. Not 0: stop. */
struct template_sink {
	int (*put)(void *ctx, const char *p, size_t n);
	void *ctx;
};

struct template_limits {
	uint64_t steps;	 /* about 20 ns each */
	uint64_t output; /* bytes */
	size_t memory;	 /* bytes of the work */
};
extern const struct template_limits template_limits_default;

/* NULL and errno: EINVAL (refused, *ret_err filled), ENOMEM. */
struct template *template_compile(struct str source, struct template_error *ret_err);
struct template *template_ref(struct template *t);
void template_unref(struct template *t); /* NULL is fine */

struct template_work *template_work_new(void); /* NULL and errno */
void template_work_free(struct template_work *w);

struct template_in {
	struct str variables;		      /* a JSON object; what is not in it is undefined */
	int64_t now;			      /* of strftime_now: Unix seconds */
	bool utc;			      /* … in UTC, else in local time */
	const struct template_limits *limits; /* NULL: the default */
};

/* An enum template_result; if not OK, *ret_err is filled. Chat requests go through chat_render (model/chat.h). */
int template_render(const struct template *t, struct template_work *w, const struct template_in *in,
		    struct template_sink sink, struct template_error *ret_err);

#endif
