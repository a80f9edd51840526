/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVS_MODEL_VOCAB_INT_H
#define KVS_MODEL_VOCAB_INT_H

#include <stdbool.h>

#include "model/vocab.h"

struct vocab_span {
	uint32_t off, len;
	bool known;
};

/* Copies all that it is given. NULL and errno (ENOMEM, EFBIG). */
struct vocab *vocab_make(const char *text, const struct vocab_span *span, uint32_t n, struct str prefix);

#endif
