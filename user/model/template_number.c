/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers as Python has them: integers without end (of which we carry those beyond 64 bits, but do not calculate with
 * them), floats that print as the shortest text that reads back as the same.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/template_int.h"

double val_double(struct run *r, struct val v)
{
	if (v.t == V_FLOAT)
		return v.d;
	if (!is_int(v))
		run_unsure(r, "an integer beyond 64 bits in arithmetic");
	return (double)v.i;
}

static int compare_int_double(int64_t i, double d)
{
	int64_t t;

	if (isnan(d))
		return 2;
	if (d >= 9223372036854775808.0)
		return -1;
	if (d < -9223372036854775808.0)
		return 1;
	t = (int64_t)d;
	if (i != t)
		return i < t ? -1 : 1;
	return d > (double)t ? -1 : d < (double)t;
}

static int compare_big(struct val a, struct val b)
{
	bool na = a.s[0] == '-', nb = b.s[0] == '-';
	int c;

	if (na != nb)
		return na ? -1 : 1;
	c = a.n != b.n ? (a.n < b.n ? -1 : 1) : memcmp(a.s, b.s, a.n);
	c = (c > 0) - (c < 0);
	return na ? -c : c;
}

int number_compare(struct val a, struct val b)
{
	if (is_int(a) && is_int(b))
		return a.i < b.i ? -1 : a.i > b.i;
	if (a.t == V_BIG && b.t == V_BIG)
		return compare_big(a, b);
	if (a.t == V_BIG || b.t == V_BIG) {
		struct val o = a.t == V_BIG ? b : a, big = a.t == V_BIG ? a : b;
		int c = big.s[0] == '-' ? -1 : 1; /* of the large one to the other */

		if (o.t == V_FLOAT) {
			char text[320];
			double d;

			if (isnan(o.d))
				return 2;
			/* A float in the range of large integers is one itself: compare its digits. */
			if (fabs(o.d) >= 9.2e18 && isfinite(o.d)) {
				int n = snprintf(text, sizeof(text), "%.0f", o.d);

				c = compare_big(big, (struct val){ .t = V_BIG, .n = (uint32_t)n, .s = text });
			} else if (isinf(o.d)) {
				d = o.d;
				c = d > 0 ? -1 : 1;
			}
		}
		return a.t == V_BIG ? c : -c;
	}
	if (is_int(a))
		return compare_int_double(a.i, b.d);
	if (is_int(b)) {
		int c = compare_int_double(b.i, a.d);

		return c == 2 ? 2 : -c;
	}
	return isnan(a.d) || isnan(b.d) ? 2 : a.d < b.d ? -1 : a.d > b.d;
}

struct val val_big(struct run *r, struct str digits, bool negative)
{
	char *p = run_bytes(r, digits.n + 1);

	if (negative)
		*p = '-';
	memcpy(p + negative, digits.p, digits.n);
	return (struct val){ .t = V_BIG, .n = (uint32_t)(digits.n + negative), .s = p };
}

/* --- from text --- */

static struct str trim_ascii(struct str s)
{
	while (s.n && uni_flags((unsigned char)s.p[0]) & U_SPACE && (unsigned char)s.p[0] < 0x80)
		s.p++, s.n--;
	while (s.n && uni_flags((unsigned char)s.p[s.n - 1]) & U_SPACE && (unsigned char)s.p[s.n - 1] < 0x80)
		s.n--;
	return s;
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* int(text, base). *ret_ok false: not an integer. */
struct val number_parse(struct run *r, struct str s, int base, bool *ret_ok)
{
	char digits[4400];
	bool negative = false, prefixed = false, fits = true;
	size_t n = 0;
	int64_t v = 0;

	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			run_unsure(r, "a number in characters outside of ASCII");
	s = trim_ascii(s);
	*ret_ok = false;
	if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
		negative = s.p[0] == '-';
		s.p++, s.n--;
	}
	if (s.n > 2 && s.p[0] == '0') {
		char x = s.p[1] | 0x20;
		int b = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;

		prefixed = b && (base == b || base == 0);
		if (prefixed) {
			base = b;
			s.p += 2, s.n -= 2;
		}
	}
	if (base == 0)
		run_unsure(r, "int() with base 0");
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '_') {
			if ((i == 0 && !prefixed) || i + 1 == s.n || s.p[i + 1] == '_')
				return val_int(0);
			continue;
		}
		if (digit_of(s.p[i]) >= base)
			return val_int(0);
		if (n == sizeof(digits))
			run_unsure(r, "a number with too many digits");
		if (n || s.p[i] != '0')
			digits[n++] = s.p[i];
		if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit_of(s.p[i]), &v))
			fits = false;
	}
	if (s.n == 0)
		return val_int(0);
	*ret_ok = true;
	if (fits)
		return val_int(negative ? -v : v);
	if (base != 10 || n > 4300)
		run_unsure(r, "a number with too many digits");
	if (negative && n == 19 && memcmp(digits, "9223372036854775808", 19) == 0)
		return val_int(INT64_MIN);
	return val_big(r, (struct str){ digits, n }, negative);
}

bool number_parse_float(struct str s, double *ret)
{
	char text[512], *end;
	size_t n = 0;

	s = trim_ascii(s);
	if (s.n == 0 || s.n >= sizeof(text))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '_') {
			if (i == 0 || i + 1 == s.n || digit_of(s.p[i - 1]) > 9 || digit_of(s.p[i + 1]) > 9)
				return false;
			continue;
		}
		if (c == 'x' || c == 'X' || c == '(' || !((unsigned char)c > 0x20 && (unsigned char)c < 0x7f))
			return false;
		text[n++] = c;
	}
	text[n] = 0;
	*ret = strtod(text, &end);
	return *end == 0;
}

/* --- to text --- */

static bool reads_back(const char *digits, int n, int exp, double d)
{
	char text[48];

	snprintf(text, sizeof(text), "%.1s.%.*se%d", digits, n - 1, digits + 1, exp);
	return strtod(text, NULL) == d;
}

/* The fewest digits that read back as d > 0: into <digits>, how many; *ret_exp: of the first. */
static int shortest(double d, char digits[24], int *ret_exp)
{
	char text[48];
	int n;

	/* 15 digits always come back, but from a number that has fewer bits than others. */
	for (n = d < 2.3e-308 ? 1 : 15; n <= 17; n++) {
		snprintf(text, sizeof(text), "%.*e", n - 1, d);
		digits[0] = text[0];
		memcpy(digits + 1, text + 2, (size_t)n - 1);
		*ret_exp = atoi(strchr(text, 'e') + 1);
		if (reads_back(digits, n, *ret_exp, d))
			break;
		/* Below a power of two the nearest 16 digits may be too far away while the next ones are not. */
		if (n == 16 && digits[15] != '9') {
			digits[15]++;
			if (reads_back(digits, n, *ret_exp, d))
				break;
		}
	}
	while (n > 1 && digits[n - 1] == '0')
		n--;
	return n;
}

unsigned number_repr(double d, char buf[32])
{
	char digits[24], *p = buf;
	int n, exp;

	if (isnan(d))
		return (unsigned)sprintf(buf, "nan");
	if (isinf(d))
		return (unsigned)sprintf(buf, d < 0 ? "-inf" : "inf");
	if (signbit(d))
		*p++ = '-';
	d = fabs(d);
	if (d == 0)
		return (unsigned)(p + sprintf(p, "0.0") - buf);
	if (d < 1e16 && d == (double)(int64_t)d)
		return (unsigned)(p + sprintf(p, "%lld.0", (long long)d) - buf);
	n = shortest(d, digits, &exp);
	if (exp < -4 || exp >= 16) {
		*p++ = digits[0];
		if (n > 1)
			p += sprintf(p, ".%.*s", n - 1, digits + 1);
		p += sprintf(p, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
	} else if (exp < 0) {
		p += sprintf(p, "0.%.*s%.*s", -exp - 1, "000", n, digits);
	} else {
		for (int i = 0; i <= exp || i < n; i++) {
			if (i == exp + 1)
				*p++ = '.';
			*p++ = i < n ? digits[i] : '0';
		}
		if (n <= exp + 1)
			p += sprintf(p, ".0");
		*p = 0;
	}
	return (unsigned)(p - buf);
}

/* --- arithmetic --- */

static noreturn void cannot(struct run *r, char op, struct val a, struct val b)
{
	const char one[2] = { op };

	if (a.t == V_UNDEF || b.t == V_UNDEF)
		undef_used(r, a.t == V_UNDEF ? a : b);
	run_raise(r, "unsupported operand types for %s: %s and %s",
		  op == 'f'   ? "//"
		  : op == 'p' ? "**"
			      : one,
		  val_type_name(a), val_type_name(b));
}

static noreturn void too_large(struct run *r)
{
	run_unsure(r, "an integer beyond 64 bits in arithmetic");
}

static double float_mod(double a, double b)
{
	double m = fmod(a, b);

	if (m != 0 ? (b < 0) != (m < 0) : 0)
		m += b;
	return m == 0 ? copysign(0, b) : m;
}

static double float_floordiv(double a, double b)
{
	double m = fmod(a, b), d = (a - m) / b, f;

	if (m != 0 && (b < 0) != (m < 0))
		d -= 1;
	if (d == 0)
		return copysign(0, a / b);
	f = floor(d);
	return d - f > 0.5 ? f + 1 : f;
}

static struct val int_pow(struct run *r, int64_t a, int64_t b)
{
	int64_t v = 1;

	if (b < 0) {
		if (a == 0)
			run_raise(r, "0 cannot be raised to a negative power");
		return val_float(pow((double)a, (double)b));
	}
	if (b > 64 && (a > 1 || a < -1))
		too_large(r);
	if (a == 1 || a == 0 || a == -1)
		return val_int(b == 0 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : a);
	for (; b; b--)
		if (__builtin_mul_overflow(v, a, &v))
			too_large(r);
	return val_int(v);
}

static struct val int_op(struct run *r, char op, int64_t a, int64_t b)
{
	int64_t v = 0;
	bool over = false;

	switch (op) {
	case '+':
		over = __builtin_add_overflow(a, b, &v);
		break;
	case '-':
		over = __builtin_sub_overflow(a, b, &v);
		break;
	case '*':
		over = __builtin_mul_overflow(a, b, &v);
		break;
	case '/':
		if (b == 0)
			run_raise(r, "division by zero");
		if (a > 1LL << 53 || a < -(1LL << 53) || b > 1LL << 53 || b < -(1LL << 53))
			too_large(r);
		return val_float((double)a / (double)b);
	case 'p':
		return int_pow(r, a, b);
	default: /* // and % */
		if (b == 0)
			run_raise(r, "integer division or modulo by zero");
		if (b == -1 && a == INT64_MIN)
			too_large(r);
		v = a / b;
		if (a % b != 0 && (a < 0) != (b < 0))
			v--;
		if (op == '%')
			v = a - v * b;
	}
	if (over)
		too_large(r);
	return val_int(v);
}

static struct val float_pow(struct run *r, double a, double b)
{
	double v;

	if (a == 0 && b < 0)
		run_raise(r, "0.0 cannot be raised to a negative power");
	v = pow(a, b);
	if (!isfinite(v))
		run_unsure(r, "a power that is no number");
	return val_float(v);
}

static struct val float_op(struct run *r, char op, double a, double b)
{
	if ((op == '/' || op == 'f' || op == '%') && b == 0)
		run_raise(r, "float division by zero");
	switch (op) {
	case '+':
		return val_float(a + b);
	case '-':
		return val_float(a - b);
	case '*':
		return val_float(a * b);
	case '/':
		return val_float(a / b);
	case '%':
		return val_float(float_mod(a, b));
	case 'f':
		return val_float(float_floordiv(a, b));
	default:
		return float_pow(r, a, b);
	}
}

static struct val concat_lists(struct run *r, struct val a, struct val b)
{
	struct val v = a;

	if (b.n == 0 || a.n == 0) {
		v = b.n ? b : a;
		v.f = 0;
		return v;
	}
	v.f = 0;
	/* What ends the arena can grow in place; whoever holds the shorter list does not see it. */
	if (template_mem_grow(r->mem, a.at, a.n * sizeof(*a.at), b.n * sizeof(*a.at))) {
		run_step(r, b.n / 4);
		v.n = a.n + b.n;
	} else {
		v = val_list(r, (enum vtype)a.t, (size_t)a.n + b.n);
		memcpy(v.at, a.at, a.n * sizeof(*v.at));
	}
	memcpy(v.at + a.n, b.at, b.n * sizeof(*v.at));
	return v;
}

static struct val repeat(struct run *r, struct val a, int64_t n)
{
	struct val v;

	if (a.t == V_STR)
		return text_repeat(r, a, n);
	if (n < 0)
		n = 0;
	if (n > 10000000 || n * a.n > 10000000)
		run_fail(r, TEMPLATE_LIMIT, "a list is too long");
	v = val_list(r, (enum vtype)a.t, (size_t)(n * a.n));
	for (uint32_t i = 0; i < v.n; i++)
		v.at[i] = val_force(r, &a.at[i % a.n]);
	return v;
}

static bool repeats(struct val v)
{
	return v.t == V_STR || v.t == V_LIST || v.t == V_TUPLE;
}

struct val val_binary(struct run *r, char op, struct val a, struct val b)
{
	if (is_int(a) && is_int(b))
		return int_op(r, op, a.i, b.i);
	if (op == '+' && a.t == V_STR && b.t == V_STR) {
		if ((a.f | b.f) & F_MARKUP) {
			if (!(a.f & F_MARKUP))
				a = val_escape(r, a);
			if (!(b.f & F_MARKUP))
				b = val_escape(r, b);
		}
		return text_concat(r, a, b);
	}
	if (op == '%' && a.t == V_STR)
		return text_percent(r, a, b);
	if (a.t >= V_BOOL && a.t <= V_FLOAT && b.t >= V_BOOL && b.t <= V_FLOAT)
		return float_op(r, op, val_double(r, a), val_double(r, b));
	if (op == '+' && a.t == b.t && (a.t == V_LIST || a.t == V_TUPLE))
		return concat_lists(r, a, b);
	if (op == '*' && ((repeats(a) && is_int(b)) || (is_int(a) && repeats(b))))
		return is_int(b) ? repeat(r, a, b.i) : repeat(r, b, a.i);
	if (a.t == V_DICT || b.t == V_DICT || a.t == V_VIEW || b.t == V_VIEW)
		if (op == '-')
			run_unsure(r, "arithmetic with views of a dict");
	cannot(r, op, a, b);
}

struct val val_unary(struct run *r, char op, struct val a)
{
	if (a.t == V_FLOAT)
		return val_float(op == '-' ? -a.d : a.d);
	if (a.t == V_BIG)
		too_large(r);
	if (!is_int(a))
		cannot(r, op, val_int(0), a);
	if (op == '-' && a.i == INT64_MIN)
		too_large(r);
	return val_int(op == '-' ? -a.i : a.i);
}
