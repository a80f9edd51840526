/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cmd_model.h"

static const struct verb verbs[] = {
	{ "render", "--template FILE [--tokenizer-config FILE] [--api NAME] [--tokens] [--pod URL] REQUEST.json|-",
	  "a chat request's text, as the engine makes it; its tokens; where a pod makes others",
	  FLAG_TEMPLATE | FLAG_TOKENIZER_CONFIG | FLAG_API | FLAG_REPEAT | FLAG_TIME | FLAG_MODEL | FLAG_CACHE |
		  FLAG_TOKENS | FLAG_POD,
	  1, 1, "file", model_render },
	{ "tokenize", "--model DIR [--special] [--decode] [FILE|-]",
	  "a text's token ids, as the engine has them; and back", FLAG_MODEL | FLAG_CACHE | FLAG_SPECIAL | FLAG_DECODE,
	  0, 1, "file", model_tokenize },
	{ "pull", "[--endpoint URL] [--revision REV] [--ca-file FILE] ORG/NAME [DIR]",
	  "fetch a model's tokenizer and templates from a hub", FLAG_ENDPOINT | FLAG_REVISION | FLAG_CA, 1, 2, NULL,
	  model_pull },
	{ "add", "DIR", "compile the tokenizer of a model's directory", FLAG_CACHE, 1, 1, "file", model_add },
	{ "list", "", "the compiled tokenizers", FLAG_CACHE, 0, 0, NULL, model_list },
};
const struct object object_model = { .name = "model", .doc = "models: templates, tokenizers", OBJECT_VERBS(verbs) };
