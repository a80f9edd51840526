/* SPDX-License-Identifier: Apache-2.0
 * Does a pod make the same tokens of a text, or of a chat, as we do? Asked of its POST /tokenize.
 */
#ifndef KVS_CLI_PARITY_H
#define KVS_CLI_PARITY_H

#include <jansson.h>

#include "cli/web.h"
#include "model/encoder.h"

enum parity { PARITY_SAME, PARITY_DIFFERS, PARITY_UNKNOWN };

struct parity_result {
	enum parity is;
	char why[400];			     /* PARITY_UNKNOWN: why; PARITY_DIFFERS, without <place>: how */
	bool place;			     /* where they part: */
	size_t byte, token;		     /* up to there all is the same; the token counts if <ids> */
	bool ids;			     /* ids were compared; else texts, for want of an encoder */
	size_t ours, theirs;		     /* tokens; ours 0 without <ids> */
	char ours_text[96], theirs_text[96]; /* from there on, as one would write it in C */
};

/* What we make: <text>, or (<refused>) nothing. */
struct parity_ours {
	struct str text;
	bool special;	     /* the tokenizer adds its special tokens */
	const char *refused; /* NULL, or why there is no text */
};

/* <body>: what /tokenize is asked, taken. <base>: "http://HOST:PORT". */
void parity_check(struct web *w, const char *base, json_t *body, struct vocab *v, const struct parity_ours *ours,
		  struct parity_result *ret);

/* Of a chat request, what /tokenize understands, for a pod that serves <model>. A new reference; NULL: it is none. */
json_t *parity_chat_body(struct str request, const char *model);

/* <n> bytes as one would write them in C, as much as fits. */
void parity_escape(const char *p, size_t n, char *out, size_t cap);
/* One line: "the same 17 tokens", "parts at byte 5 (token 3): …". */
void parity_say(const struct parity_result *r, char *out, size_t cap);

#endif
