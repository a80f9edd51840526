/* SPDX-License-Identifier: Apache-2.0
 * JSON written into a buffer, commas and quoting by itself:
 *
 *   struct jw w; jw_init(&w, &buf);
 *   jw_obj(&w); jw_key(&w, "pods"); jw_arr(&w); jw_str(&w, name); jw_end_arr(&w); jw_end_obj(&w);
 *
 * Errors: writing is never refused; -ENOMEM is remembered and jw_err tells it at the end.
 * Strings are written as UTF-8; bytes that are not UTF-8 become U+FFFD.
 */
#ifndef KVS_BASE_JW_H
#define KVS_BASE_JW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct jw {
	struct buf *b;
	int err;
	bool comma; /* a value stands before this place */
};

void jw_init(struct jw *w, struct buf *b);
void jw_obj(struct jw *w);
void jw_end_obj(struct jw *w);
void jw_arr(struct jw *w);
void jw_end_arr(struct jw *w);
void jw_key(struct jw *w, const char *key);
void jw_str(struct jw *w, const char *s); /* NULL writes null */
void jw_strn(struct jw *w, struct str s); /* {NULL, 0} writes null */
void jw_u64(struct jw *w, uint64_t v);
void jw_i64(struct jw *w, int64_t v);
void jw_num(struct jw *w, double v); /* shortest of %.6g form; not finite writes null */
void jw_bool(struct jw *w, bool v);
void jw_null(struct jw *w);
int jw_err(const struct jw *w);

#define jw_kstr(w, k, v)  (jw_key(w, k), jw_str(w, v))
#define jw_ku64(w, k, v)  (jw_key(w, k), jw_u64(w, v))
#define jw_knum(w, k, v)  (jw_key(w, k), jw_num(w, v))
#define jw_kbool(w, k, v) (jw_key(w, k), jw_bool(w, v))

#endif
