/* SPDX-License-Identifier: Apache-2.0
 * Token ids → text that tells whether they are what the tokenizer makes of it.
 *
 * Equal text is not equal tokens: what a model generated ("\n", "\n") need not be what its text becomes in the next
 * prompt ("\n\n"), and an engine that has the one cached misses the other. So the text of ids gets a mark, a byte that
 * no UTF-8 has, before the first token that no text's ids go on with; from there on the text of a prompt matches
 * nothing. The same ids give the same marks, however they are cut into calls (but see CANON_TAIL), so a prompt of ids
 * does match.
 *
 * Threads: a canon is one thread's, as its encoder is.
 */
#ifndef KVS_MODEL_CANON_H
#define KVS_MODEL_CANON_H

#include "model/encoder.h"

#define CANON_MARK "\xfe"

/* With what the next tokens are judged: those since the last place over which nothing is joined. {0} is the beginning
 * of a text. Where there are more, or they are not known (<id> has the last one, or none), nothing is marked up to the
 * next such place. */
#define CANON_TAIL 48
struct canon_tail {
	uint16_t n;
	bool unknown;
	uint32_t id[CANON_TAIL];
};

struct canon;

struct canon *canon_new(struct vocab *v); /* NULL and errno: as encoder_new */
void canon_free(struct canon *c);

/* Append the text of <n> ids with its marks; <tail> is that of the ids before and becomes that of the ids behind.
 * Returns the number of marks; -ENOMEM; -ERANGE at an unknown id (nothing is appended then, the tail is as it was). */
int canon_text(struct canon *c, struct canon_tail *tail, const uint32_t *ids, size_t n, struct buf *text);

#endif
