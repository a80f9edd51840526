/* SPDX-License-Identifier: Apache-2.0
 * A vocabulary read backwards: token id → the bytes that it stands for.
 *
 * One image without pointers, mapped from a compiled file or made in memory; the encoder's tables are in it too.
 * Source: `tokenizer.json` of Hugging Face's tokenizers. Understood: BPE with the byte-level alphabet (GPT-2's, undone
 * here), BPE of SentencePiece kind ("▁" is a space, "<0xXX>" a byte), added tokens as their literal text. Anything else
 * is refused with a message, because a wrong table would be silent.
 * Threads: immutable once made; shared freely, reference counted.
 */
#ifndef KVS_MODEL_VOCAB_H
#define KVS_MODEL_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

struct vocab;

/* Read <dir>/tokenizer.json (and tokenizer_config.json if it is there). NULL and errno; <err> gets one line that names
 * the file, the place and the reason. <cache> (NULL: none) is a directory of compiled vocabularies: what is found there
 * for the same files is mapped (some ms), else they are compiled (a second) and the result is left there if it may be.
 */
struct vocab *vocab_load(const char *dir, const char *cache, char *err, size_t err_len);
struct vocab *vocab_open(const char *path, char *err, size_t err_len); /* a compiled file; the same */
struct vocab *vocab_ref(struct vocab *v);
void vocab_unref(struct vocab *v); /* NULL is fine */

/* A table in which token i is the byte i (0 … 255): kvsim's tokenizer when it has no real one. */
struct vocab *vocab_bytes(void);

uint32_t vocab_size(const struct vocab *v);
struct str vocab_token(const struct vocab *v, uint32_t id); /* {NULL, 0} for an id that is not in it */

/* Append the bytes of <n> tokens. 0, -ENOMEM, or -ERANGE at the first unknown id (nothing is appended). */
int vocab_text(const struct vocab *v, const uint32_t *ids, size_t n, struct buf *out);

/* What the tokenizer's post-processor puts in front of a completions prompt (BOS and the like) as text; may be empty.
 */
struct str vocab_prefix(const struct vocab *v);

struct str vocab_name(const struct vocab *v); /* the directory that it was made from */

/* The name of the files that it was made from, as in the cache: <name>.vocab. */
#define VOCAB_SOURCE 33
void vocab_source(const struct vocab *v, char ret[VOCAB_SOURCE]);

#endif
