/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/heap.h"
#include "base/jw.h"
#include "base/qsbr.h"
#include "base/rand.h"
#include "base/sha1.h"
#include "base/str.h"

static void numbers_are_digits_only(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t v;
	} rows[] = {
		{ "0", 0, 0 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "0x1", -EINVAL, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t v = 0;

		assert_int_equal(str_u64(str_of(rows[i].text), &v), rows[i].r);
		assert_int_equal(v, rows[i].v);
	}
}

static void names_compare_without_case(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} rows[] = {
		{ "", "", true },     { "Content-Length", "content-lengtH", true },
		{ "te", "te", true }, { "te", "ten", false },
		{ "@", "`", false }, /* differ in the bit that tells letters' cases apart, and are no letters */
		{ "[", "{", false },  { "a\xc4", "A\xe4", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(str_ieq(str_of(rows[i].a), str_of(rows[i].b)), rows[i].same);
		assert_int_equal(str_ieq(str_of(rows[i].b), str_of(rows[i].a)), rows[i].same);
	}
}

static void a_copy_is_cut_where_it_does_not_fit(void **state)
{
	char out[4] = "xxx";

	(void)state;
	str_copy(out, sizeof(out), "abc");
	assert_string_equal(out, "abc");
	str_copy(out, sizeof(out), "defgh");
	assert_string_equal(out, "def");
	str_copy(out, 1, "defgh");
	assert_string_equal(out, "");
}

static void sha1_is_the_standard_s(void **state)
{
	static const struct {
		const char *text;
		unsigned times;
		const char *sum;
	} rows[] = {
		{ "", 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709" },
		{ "abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
		  "84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
		{ "0123456701234567012345670123456701234567012345670123456701234567", 10,
		  "dea356a2cddd90c7a7ecedc5ebb563934f460452" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t out[20];
		char hex[41];
		struct sha1 s;

		sha1_init(&s);
		for (unsigned k = 0; k < rows[i].times; k++)
			sha1_update(&s, rows[i].text, strlen(rows[i].text));
		sha1_final(&s, out);
		for (unsigned k = 0; k < 20; k++)
			snprintf(hex + 2 * k, 3, "%02x", out[k]);
		assert_string_equal(hex, rows[i].sum);
	}
}

static void a_buffer_keeps_its_bytes_in_order(void **state)
{
	struct buf b = { 0 };
	struct rng r = { 1 };
	uint64_t in = 0, out = 0;

	for (int step = 0; step < 20000; step++) {
		unsigned n = (unsigned)rng_below(&r, 300);

		if (rng_below(&r, 2)) {
			unsigned char *p = (unsigned char *)buf_room(&b, n);

			for (unsigned i = 0; i < n; i++)
				p[i] = (unsigned char)(in++ * 31);
			buf_commit(&b, n);
		} else {
			if (n > buf_len(&b))
				n = (unsigned)buf_len(&b);
			for (unsigned i = 0; i < n; i++)
				assert_int_equal((unsigned char)buf_data(&b)[i], (unsigned char)(out++ * 31));
			buf_consume(&b, n);
		}
	}
	assert_int_equal(in - out, buf_len(&b));
	buf_free(&b);
}

static void json_is_escaped_and_repaired(void **state)
{
	struct buf b = { 0 };
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kstr(&w, "a\"", "x\n\x01\\\xff\xc3\xbc");
	jw_key(&w, "l");
	jw_arr(&w);
	jw_u64(&w, 1);
	jw_str(&w, NULL);
	jw_num(&w, 0.5);
	jw_end_arr(&w);
	jw_kbool(&w, "t", true);
	jw_end_obj(&w);
	buf_put(&b, "", 1);
	assert_string_equal(buf_data(&b),
			    "{\"a\\\"\":\"x\\n\\u0001\\\\\xef\xbf\xbd\xc3\xbc\",\"l\":[1,null,0.5],\"t\":true}");
	assert_int_equal(jw_err(&w), 0);
	buf_free(&b);
}

static void a_heap_gives_its_keys_in_order(void **state)
{
	struct heap_node nodes[500];
	struct heap h = { 0 };
	struct rng r = { 2 };
	uint64_t last = 0;
	unsigned left = 0;

	for (unsigned i = 0; i < 500; i++) {
		heap_node_init(&nodes[i]);
		assert_int_equal(heap_set(&h, &nodes[i], rng_below(&r, 1000)), 0);
	}
	for (unsigned i = 0; i < 500; i += 3)
		heap_set(&h, &nodes[i], rng_below(&r, 1000));
	for (unsigned i = 0; i < 500; i += 7)
		heap_del(&h, &nodes[i]);
	for (struct heap_node *n; (n = heap_min(&h)); left++) {
		assert_true(n->key >= last);
		last = n->key;
		heap_del(&h, n);
	}
	assert_int_equal(left, 500 - 72);
	heap_free(&h);
}

static void memory_waits_for_readers_that_entered_before(void **state)
{
	static struct qsbr q;
	uint64_t e;

	qsbr_init(&q, 2);
	qsbr_enter(&q, 0);
	e = qsbr_retire(&q);
	assert_false(qsbr_passed(&q, e));
	qsbr_enter(&q, 1); /* came after the unlinking: cannot hold it */
	qsbr_leave(&q, 0);
	assert_true(qsbr_passed(&q, e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_digits_only),
		cmocka_unit_test(names_compare_without_case),
		cmocka_unit_test(a_copy_is_cut_where_it_does_not_fit),
		cmocka_unit_test(a_buffer_keeps_its_bytes_in_order),
		cmocka_unit_test(json_is_escaped_and_repaired),
		cmocka_unit_test(sha1_is_the_standard_s),
		cmocka_unit_test(a_heap_gives_its_keys_in_order),
		cmocka_unit_test(memory_waits_for_readers_that_entered_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
