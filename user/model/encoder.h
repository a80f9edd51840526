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

#endif
