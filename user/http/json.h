/* SPDX-License-Identifier: Apache-2.0
 * JSON spans: where in a request body the members that steer it stand. No DOM, no copy, no allocation; the body is
 * validated against RFC 8259 as it is walked (structure, numbers, literals, escapes, UTF-8), with limits on depth and
 * on the length of a number.
 *
 * Tokens of a text that is still arriving:
 *
 *   json_start(&j);
 *   for each piece:                                      // <text> is all that has come, wherever it lies by now
 *           json_feed(&j, text, is_last);
 *           while ((r = json_next(&j, &t)) > 0)          // 0: more is needed, or the text has ended; -EBADMSG
 *                   …
 *
 * or a cursor over complete text: descend into what matters, skip the rest:
 *
 *   json_init(&j, body);
 *   if (json_value(&j, &v) == 0 && v.kind == JSON_T_OBJ)
 *           while (json_member(&j, &k, &v) > 0)          // v is opened when it is '{' or '[': walk it or json_skip it
 *                   …
 *
 * Duplicate keys are reported as they come; the last one wins, as in Python's json.
 */
#ifndef KVS_HTTP_JSON_H
#define KVS_HTTP_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

#define JSON_DEPTH_MAX	64
#define JSON_NUMBER_MAX 4300 /* bytes; Python refuses more digits too */

enum json_kind {
	/* values */
	JSON_T_OBJ,
	JSON_T_ARR,
	JSON_T_STR,
	JSON_T_NUM,
	JSON_T_TRUE,
	JSON_T_FALSE,
	JSON_T_NULL,
	/* from json_next only */
	JSON_T_KEY,
	JSON_T_CLOSE, /* of the object or array at <depth> */
	JSON_T_PART,  /* some more of a long string has been copied; its JSON_T_STR will follow */
};

struct json_val {
	enum json_kind kind;
	bool escaped;  /* strings: may have a backslash */
	bool lone;     /* strings copied: a surrogate had no other half, so that it has no value */
	uint8_t depth; /* JSON_T_OBJ, JSON_T_ARR: of the cursor while it is open, for json_skip */
	/* strings: between the quotes, escapes as they stand; JSON_T_NUM: its text; else the first byte. Points into
	 * the text that was fed last. */
	struct str raw;
};

struct json {
	const char *text;
	size_t n, at; /* bytes of <text> that are there, that have been read */
	bool whole;   /* nothing will follow */
	uint8_t depth;
	/* Set before a value is read: if it is a string, its value is appended here while it is scanned. Falls back to
	 * NULL with that value. */
	struct buf *into;
	/* private */
	uint8_t want;
	bool in_string, key, escaped, lone;
	uint8_t stack[JSON_DEPTH_MAX + 1]; /* JSON_T_OBJ or JSON_T_ARR */
	size_t start, valid, half; /* of the string under way: not given away, UTF-8 known, last high surrogate */
	int err;
};

void json_start(struct json *j);
/* <text> begins with all that was fed before, and may have moved. */
void json_feed(struct json *j, struct str text, bool whole);
/* 1 and a token; 0: more is needed or, if the text is whole, all of it was read; -EBADMSG or -ENOMEM, again on each
 * further call.
 */
int json_next(struct json *j, struct json_val *ret);

void json_init(struct json *j, struct str text);

/* The next value (at the start of the text). 0 or -EBADMSG. */
int json_value(struct json *j, struct json_val *ret);

/* In an open object: 1 and the next member, 0 at its end (the object is closed), -EBADMSG. The former member's value
 * must have been walked to its end or skipped. */
int json_member(struct json *j, struct json_val *ret_key, struct json_val *ret_val);
/* In an open array: the same for elements. */
int json_element(struct json *j, struct json_val *ret_val);

/* Walk what is left of <v>, if it is an object or array, from wherever inside it the cursor stands; for others nothing
 * is to do. <ret_raw>, if not NULL, gets the whole value's text: then call it before the cursor moves beyond <v>.
 * 0 or -EBADMSG. */
int json_skip(struct json *j, const struct json_val *v, struct str *ret_raw);

/* Only white space left? 0 or -EBADMSG. */
int json_end(struct json *j);

/* Is the string's value <lit> (escapes understood)? */
bool json_str_is(const struct json_val *v, struct str lit);

/* Append the string's value, unescaped, UTF-8. Lone surrogates: -EILSEQ (nothing is appended). 0,
 * -ENOMEM. */
int json_unescape(const struct json_val *v, struct buf *out);

/* An integer without fraction or exponent. 0, -EINVAL, -ERANGE. */
int json_u64(const struct json_val *v, uint64_t *ret);

#endif
