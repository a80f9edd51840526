/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cmd_model.h"

static const struct verb verbs[] = {
	{ "render", "--template FILE [--tokenizer-config FILE] REQUEST.json|-",
	  "a chat request's text, as the engine makes it",
	  FLAG_TEMPLATE | FLAG_TOKENIZER_CONFIG | FLAG_REPEAT | FLAG_TIME, 1, 1, "file", model_render },
};
const struct object object_model = { .name = "model", .doc = "models: templates", OBJECT_VERBS(verbs) };
