/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a request of each API, through a template of each kind of content: it ends with a text or a reason.
 */
#include <stdlib.h>

#include "model/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct template *templates[2];

static int count(void *ctx, const char *p, size_t n)
{
	*(size_t *)ctx += n;
	return 0;
}

static void compile_once(void)
{
	static const char text[] =
		"{{ tools|tojson }}{% for m in messages %}{{ m.role ~ m.content|trim }}{{ m|tojson }}"
		"{{ m.tool_calls|default([])|map(attribute='function')|list }}{% endfor %}"
		"{{ enable_thinking }}{{ documents }}{% if add_generation_prompt %}A{% endif %}",
			  parts[] =
				  "{% for m in messages %}{% for p in m.content %}{{ p.type }}{{ p.text }}{% endfor %}"
				  "{{ m }}{% endfor %}{{ developer }}{{ tools }}";
	struct template_error err;

	templates[0] = template_compile(STR(text), &err);
	templates[1] = template_compile(STR(parts), &err);
	if (!templates[0] || !templates[1] || chat_wants_parts(templates[0]) || !chat_wants_parts(templates[1]))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct template_limits limits = { .steps = 1 << 18, .output = 1 << 18, .memory = 8 << 20 };
	struct chat_in in = { .request = { (const char *)data, size }, .utc = true, .limits = &limits };
	struct template_error err;
	struct template_work *w;

	if (!templates[0])
		compile_once();
	w = template_work_new();
	for (int i = 0; w && i < 6; i++) {
		size_t n = 0;
		int r;

		in.api = (enum chat_api)(i / 2);
		r = chat_render(templates[i & 1], w, &in, (struct template_sink){ count, &n }, &err);

		if (r != TEMPLATE_OK && !err.text[0])
			abort();
	}
	template_work_free(w);
	return 0;
}
