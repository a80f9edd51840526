/* SPDX-License-Identifier: Apache-2.0
 * Text → token ids, as the tokenizers library would: exact or not at all. A tokenizer with a part that is not known
 * here has no encoder (vocab_no_encoder names the part), and whoever needs one falls back.
 *
 * Threads: an encoder has a cache of words and scratch memory and belongs to one thread; the vocabulary is shared.
 */
#ifndef KVS_MODEL_ENCODER_H
#define KVS_MODEL_ENCODER_H

#include <stdbool.h>

#include "base/buf.h"
#include "model/vocab.h"

struct encoder;

const char *vocab_no_encoder(const struct vocab *v); /* NULL: it has one; else why not */

struct encoder *encoder_new(struct vocab *v); /* takes a reference. NULL and errno: ENOMEM, EOPNOTSUPP */
void encoder_free(struct encoder *e);

/* Append the ids of <text> to <ids>, a run of uint32_t. <special>: with what the post-processor puts around a text.
 * Text of an added token becomes that token, as in the engines. 0; -EILSEQ: no UTF-8; -EFBIG: more than a GiB;
 * -ENOMEM. After a failure <ids> is as it was. */
int encoder_encode(struct encoder *e, struct str text, bool special, struct buf *ids);

/* For texts of a few words: a cache of 32 KB instead of 4 MB. */
struct encoder *encoder_new_small(struct vocab *v);

/* Is there an end of a token at <at> of a text (valid UTF-8 or not)? Looks at what is around it only; true where that
 * does not tell. */
bool encoder_cuts(struct encoder *e, struct str text, size_t at);

/* --- the form of a text that ids give back --- */

/* Some tokenizers rewrite a text before they cut it (NFC; U+2581 and the space are one). May any of them rewrite one
 * with these bytes? Quick; false is sure. */
bool text_may_be_rewritten(const char *p, size_t n);
/* 1: into <ret>; 0: it stays as it is, <ret> too; -ENOMEM. */
int vocab_rewrite(const struct vocab *v, struct str text, struct buf *ret);

#endif
