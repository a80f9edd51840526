#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A chat is matched by the text that the model's template makes of it, token for token; where that cannot be told, by a
form of our own, and the daemon says why.

The pods are kvsim's: ChatML, and a token is a byte, so what is predicted is exact."""
import json
import os
import random
import shutil
import time

import lib
from lib import need, until

BLOCK = 16
BYTES = os.path.join(lib.TOP, "selftests/data/bytes-tokenizer")
CHATML = os.path.join(lib.TOP, "tools/sim/chatml.jinja")
rng = random.Random(11)


def text(n):
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz      \"\\\u00fc\u6771,.\n") for _ in range(n))


def say(role, content):
    return {"role": role, "content": content}


def model(w, template=None, config=None, tokenizer_config=None):
    d = w.path("model")
    shutil.copytree(BYTES, d)
    for name, v in ("chat_template.jinja", template), ("config.json", config), ("tokenizer_config.json", tokenizer_config):
        if v is not None:
            with open(os.path.join(d, name), "w") as f:
                f.write(v if isinstance(v, str) else json.dumps(v))
    return d


def gateway(w, pods, path, more=""):
    g = w.gateway(pods, pool="model-path: %s\n%s" % (path, more))
    until(lambda: all(p["index"] == "live" for p in g.cli("pod", "list")), "events flow")
    until(lambda: all(g.pod_state(p)["version"] for p in pods), "versions are known")
    return g


def chatml():
    with open(CHATML) as f:
        return f.read()


class Asked:
    def __init__(self, g, messages, **body):
        a = g.post(dict({"model": "m", "max_tokens": 40, "messages": messages}, **body), "/v1/chat/completions", ["x-kvsteer-explain: 1"])
        need(a.status == 200 and a.complete, "status %d: %s" % (a.status, a.body[:300]))
        why, usage = json.loads(a.headers["x-kvsteer-decision"]), a.json()["usage"]
        self.pod, self.mode, self.predicted = a.headers["x-kvsteer-pod"], why["mode"], why["predicted_tokens"]
        self.tokens, self.reported = usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
        self.said, self.estimate = a.json()["choices"][0]["message"], why["prompt_tokens"]

    def __repr__(self):
        return "%s tokens on %s (%s): predicted %s, reported %s" % (self.tokens, self.pod, self.mode, self.predicted, self.reported)


def settle(g, pods):
    seen = [g.metric("kv_event_batches_total"), time.time()]

    def still():
        n = g.metric("kv_event_batches_total")
        if n != seen[0]:
            seen[:] = n, time.time()
        return seen[0] and time.time() - seen[1] > 0.15
    until(still, "events come to an end")
    until(lambda: all(g.pod_state(p)["speculative"] == 0 for p in pods), "only events are believed")


def exact(r):
    need(r.mode == "precise" and r.predicted == r.reported, "%r" % r)


def predicted(g, path, body):
    """What is said of a request that kvsim does not know how to answer."""
    a = g.post(dict({"model": "m", "max_tokens": 40}, **body), path, ["x-kvsteer-explain: 1"])
    need(a.status == 404 and b"Not Found" in a.body, "status %d: %s" % (a.status, a.body[:300]))
    return json.loads(a.headers["x-kvsteer-decision"])


def renders(g, result):
    return g.metric("chat_renders_total{result=\"%s\"" % result)


def test_turns_are_predicted_token_for_token(w):
    pods = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4)]
    g = gateway(w, pods, model(w, chatml()))
    system = say("system", text(500))
    for _ in range(2):
        chat = [system, say("user", text(150))]
        home = None
        for turn in range(3):
            r = Asked(g, chat)
            exact(r)
            need(turn == 0 or (r.reported > 600 and r.pod == home), "turn %d: %r" % (turn, r))
            home = r.pod
            settle(g, pods)
            chat += [say("assistant", r.said["content"]), say("user", text(90))]
    need(renders(g, "exact") == 6, "%d were rendered" % renders(g, "exact"))


def test_a_shared_system_text_is_all_that_another_chat_finds(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml()))
    system = say("system", text(300))
    Asked(g, [system, say("user", "1" + text(50))])
    settle(g, pods)
    r = Asked(g, [system, say("user", "2" + text(50))])
    exact(r)
    shared = len(("<|im_start|>system\n%s<|im_end|>\n<|im_start|>user\n" % system["content"]).encode())
    need(r.reported == shared // BLOCK * BLOCK, "%r, %d bytes are shared" % (r, shared))


def test_parts_of_content_are_joined_as_the_engine_does(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml()))
    a, b = text(200), text(200)
    Asked(g, [say("user", a + "\n" + b)])
    settle(g, pods)
    r = Asked(g, [say("user", [{"type": "text", "text": a}, {"type": "text", "text": b}])])
    need(r.mode == "precise" and r.predicted > 350, "%r" % r)


def test_messages_of_anthropics_api_are_the_chat_that_the_engine_makes_of_them(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml()))
    system, first, answer, second = text(200), text(100), text(80), text(120)
    r = Asked(g, [say("system", system), say("user", first), say("assistant", answer), say("user", "a\nb"), say("user", second)])
    settle(g, pods)
    header = {"type": "text", "text": "x-anthropic-billing-header: cch=%d" % rng.random()}
    body = {"messages": [say("user", first), say("assistant", [{"type": "text", "text": answer}]),
                         say("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), say("user", second)]}
    whole = (r.tokens - 1) // BLOCK * BLOCK
    for system in system, [header, {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]:
        for body in {"system": system, **body}, {**body, "system": system}:
            why = predicted(g, "/v1/messages", body)
            need(why["mode"] == "precise" and why["predicted_tokens"] == whole, "%r, not %d" % (why, whole))
    need(renders(g, "exact") == 5, "%d were rendered" % renders(g, "exact"))
    body["messages"][0]["content"] = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]
    need(predicted(g, "/v1/messages", body)["mode"] == "approximate" and renders(g, "media") == 1, "a picture")


def test_responses_are_the_chat_that_the_engine_makes_of_them(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml()))
    system, first, answer, second = text(200), text(100), text(80), text(120)
    r = Asked(g, [say("system", system), say("user", first), say("assistant", answer), say("user", second)])
    settle(g, pods)
    body = {"instructions": system, "input": [
        say("user", first), {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": answer}]},
        say("user", [{"type": "input_text", "text": second}])]}
    why = predicted(g, "/v1/responses", body)
    need(why["mode"] == "precise" and why["predicted_tokens"] == (r.tokens - 1) // BLOCK * BLOCK, "%r, not %d" % (why, r.tokens))
    r = Asked(g, [say("user", first)])
    settle(g, pods)
    why = predicted(g, "/v1/responses", {"input": first})
    need(why["mode"] == "precise" and why["predicted_tokens"] == (r.tokens - 1) // BLOCK * BLOCK, "%r, not %d" % (why, r.tokens))


def test_what_an_engine_has_kept_of_an_earlier_response_is_not_guessed(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml()))
    for known in False, True:
        why = predicted(g, "/v1/responses", {"input": text(400), **({"previous_response_id": "resp_1"} if known else {"previous_response_id": None})})
        need(why["mode"] == ("load" if known else "precise"), "%r" % why)
    need(g.metric("opaque_total{reason=\"engine_state\"") == 1 and renders(g, "exact") == 1, "not counted")


def test_without_a_template_other_apis_are_matched_by_what_the_client_sent(w):
    pods = [w.pod(lambda c, r: (r.read_body(), c.reply(b"{}")), ip) for ip in ("127.0.0.7", "127.0.0.8", "127.0.0.9")]
    g = w.gateway(pods, pool="model-path: " + model(w))
    turns = [say("user", text(3000)), say("assistant", text(800)), say("user", text(300))]
    more = turns + [say("assistant", text(200)), say("user", text(100))]
    for path, body, longer in (("/v1/messages", {"system": text(400), "messages": turns}, {"messages": more}),
                               ("/v1/messages", {"messages": turns, "system": [{"type": "text", "text": text(400)}]}, {"messages": more}),
                               ("/v1/responses", {"input": turns}, {"input": more}),
                               ("/v1/responses", {"instructions": text(4000), "input": text(100)}, {"input": text(200)})):
        asked = []
        for b in body, {**body, **longer}:
            a = g.post(dict({"model": "m"}, **b), path, ["x-kvsteer-explain: 1"])
            asked.append((a.headers["x-kvsteer-pod"], json.loads(a.headers["x-kvsteer-decision"])))
            time.sleep(0.05)
        (first, cold), (second, warm) = asked
        need(cold["mode"] == warm["mode"] == "approximate", "%s: %r" % (path, warm))
        need(cold["predicted_tokens"] == 0 and warm["predicted_tokens"] > 300 and first == second, "%s: %r" % (path, asked))
    need(renders(g, "no_template") == 8, "%d were counted" % renders(g, "no_template"))


def test_the_template_of_the_configuration_wins(w):
    """The engine's --chat-template; the directory's would give another text."""
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, "{{ messages[0].content }}"), "chat-template: " + CHATML)
    chat = [say("user", text(400))]
    Asked(g, chat)
    settle(g, pods)
    r = Asked(g, chat)
    exact(r)
    need(r.reported > 350, "%r" % r)


def test_the_tokenizers_configuration_may_hold_the_template(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, tokenizer_config={"chat_template": [
        {"name": "tool_use", "template": "{{ raise_exception('no tools') }}"}, {"name": "default", "template": chatml()}]}))
    chat = [say("user", text(400))]
    Asked(g, chat)
    settle(g, pods)
    r = Asked(g, chat)
    exact(r)
    need(r.reported > 350, "%r" % r)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    r = Asked(g, chat, tools=[tool])
    need(r.mode == "approximate" and renders(g, "raised") == 1, "%r" % r)
    # A response's empty list of tools is none to the engine; one of the engine's own tools is a list, though an empty one.
    for tools, mode in ([], "precise"), ([{"type": "web_search"}], "approximate"):
        why = predicted(g, "/v1/responses", {"input": chat, "tools": tools})
        need(why["mode"] == mode, "%r: %r" % (tools, why))


def test_a_response_has_the_special_token_in_front_that_a_chat_has_not(w):
    """vLLM tokenizes what a template made for a response as it does a prompt of completions."""
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml(), tokenizer_config={"add_bos_token": True, "bos_token": "Z"}))
    said = text(300)
    text_of_it = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n" % said
    with lib.Conn((pods[0].ip, pods[0].port)) as c:
        c.send(lib.request({"model": "m", "prompt": "Z" + text_of_it, "max_tokens": 1}))
        need(c.answer().status == 200, "not answered")
    settle(g, pods)
    why = predicted(g, "/v1/responses", {"input": said})
    need(why["mode"] == "precise" and why["predicted_tokens"] == len(text_of_it.encode()) // BLOCK * BLOCK, "%r" % why)
    r = Asked(g, [say("user", said)])
    exact(r)
    need(r.reported == 0, "%r" % r)


def test_what_the_template_refuses_is_the_engines_to_answer(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, "{% if messages[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}" + chatml()))
    r = Asked(g, [say("system", text(300)), say("user", "?")])
    need(r.mode == "approximate" and renders(g, "raised") == 1, "%r" % r)
    need(Asked(g, [say("user", text(300))]).mode == "precise", "the next one is not rendered")


PARTS = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"


def media(w, template):
    """What a template makes of a picture is the same for each, and is not what the engine's chain has of it."""
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, template))
    parts = [{"type": "text", "text": text(200)}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    a = g.post({"model": "m", "messages": [say("user", parts)]}, "/v1/chat/completions", ["x-kvsteer-explain: 1"])
    need(json.loads(a.headers["x-kvsteer-decision"])["mode"] == "approximate", "%r" % a.headers)
    need(renders(g, "media") == 1, "not counted")


def test_media_are_matched_by_what_the_client_sent(w):
    media(w, PARTS)


def test_media_in_a_template_of_strings_are_matched_likewise(w):
    media(w, chatml())


def test_a_request_cannot_keep_a_worker_in_a_template(w):
    pods = [w.sim(ip="127.0.0.3")]
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    g = gateway(w, pods, model(w, "{% if messages[0].content == 'slow' %}" + loops + "{% endif %}" + chatml()))
    began = time.time()
    r = Asked(g, [say("user", "slow")], max_tokens=1)
    need(r.mode == "approximate" and renders(g, "limit") == 1, "%r" % r)
    need(time.time() - began < 2, "took %.1f s" % (time.time() - began))
    need(Asked(g, [say("user", "quick")]).mode == "precise", "the next one is not rendered")


# --- bodies made to hurt

def raw(g, body, path="/v1/chat/completions"):
    a = g.post(body if isinstance(body, bytes) else body.encode(), path, ["x-kvsteer-explain: 1"], timeout=60)
    return a.status, json.loads(a.headers.get("x-kvsteer-decision", "{}")), a


def bodies(said):
    """The same words through each API."""
    return (("/v1/chat/completions", '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"%s"}]}' % said),
            ("/v1/messages", '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"%s"}]}]}' % said),
            ("/v1/responses", '{"model":"m","max_output_tokens":1,"input":[{"role":"user","content":"%s"}]}' % said))


def test_half_a_surrogate_pair_has_no_text_to_match(w):
    """Engines refuse such a body or fail; here it passes as it came, matched by nothing."""
    got = []
    pods = [w.pod(lambda c, r: (r.read_body(), got.append(r.body), c.reply(b"{}")), ip) for ip in ("127.0.0.7", "127.0.0.8")]
    g = w.gateway(pods, pool="model-path: %s\nengine-version: \"0.32\"" % model(w, chatml()))
    for half in "\\ud83d", "\\ude00", "\\ude00\\ud83d", "\\uD83Dx":
        for path, body in bodies("a" * 300 + half + "b" * 300):
            for _ in range(2):
                status, why, a = raw(g, body, path)
                # Parts of content are compared as the bytes that they are.
                modes = ("load", "approximate") if path == "/v1/messages" else ("load",)
                need(status == 200 and why["mode"] in modes, "%s %s: %d %r" % (path, half, status, why))
                need(got[-1] == body.encode(), "the body was changed")
    for path, body in bodies("a" * 300 + "\\ud83d\\ude00" + "b" * 300):
        need(raw(g, body, path)[1]["mode"] == "approximate", "a whole pair on %s" % path)
    need(renders(g, "exact") == 3, "%d were rendered" % renders(g, "exact"))


def test_of_members_said_twice_the_last_one_counts_as_in_the_engine(w):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, chatml()))
    x, y = text(300), text(300)
    r = Asked(g, [say("user", x)])
    settle(g, pods)
    whole = (r.tokens - 1) // BLOCK * BLOCK
    m, n = json.dumps([say("user", x)]), json.dumps([say("user", y)])
    for body, want in (('{"model":"m","messages":%s,"messages":%s}' % (n, m), whole), ('{"model":"m","messages":%s,"messages":%s}' % (m, n), 16),
                       ('{"model":"no","messages":[{"role":"system","content":%s,"role":"user","content":%s}],"model":"m"}' % (json.dumps(y), json.dumps(x)), whole),
                       ('{"model":"m","messages":%s,"add_generation_prompt":false,"add_generation_prompt":true}' % m, whole)):
        status, why, _ = raw(g, body)
        need(status == 200 and why["mode"] == "precise" and why["predicted_tokens"] in (want, want - want % 32) if want == 16 else why["predicted_tokens"] == want,
             "%s…: %r, not %d" % (body[:60], why, want))


def test_nesting_without_end_is_passed_on_unread(w):
    pods = [w.pod(lambda c, r: (r.read_body(), c.reply(b"{}")), "127.0.0.7")]
    g = w.gateway(pods, pool="model-path: %s\nengine-version: \"0.32\"" % model(w, chatml()))
    deep = 100000
    for opened, closed in ("[" * deep, "]" * deep), ('{"a":' * deep, "}" * deep):
        for path, body in bodies("x" * 300):
            for nested in (body[:-1] + ',"metadata":' + opened + "1" + closed + "}", body.replace('"role"', '"z":' + opened + "1" + closed + ',"role"', 1)):
                began = time.time()
                status, why, _ = raw(g, nested, path)
                need(status == 200 and why["mode"] == "load" and time.time() - began < 2, "%s: %d %r %s" % (path, status, why, _.body[:200]))
    need(g.metric("opaque_total{reason=\"not_json\"") == 12, "not counted")
    # Nested in a string, it is the template's to read: arguments of a call.
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":' * deep + "1" + "}" * deep}}
    status, why, _ = raw(g, json.dumps({"model": "m", "messages": [say("user", "x"), {"role": "assistant", "tool_calls": [call]}]}))
    need(status == 200 and why["mode"] == "approximate" and renders(g, "unsure") == 1, "%d %r" % (status, why))
    need(raw(g, bodies("fine")[0][1])[1]["mode"] == "approximate" and renders(g, "exact") == 1, "the next one is not rendered")


def test_a_hundred_megabytes_of_escapes_cost_what_they_weigh(w):
    pods = [w.pod(lambda c, r: (r.read_body(), c.reply(b"{}")), "127.0.0.7")]
    g = w.gateway(pods, pool="model-path: %s\nengine-version: \"0.32\"" % model(w, chatml()), limits="body: 128MiB")
    body = bodies("\\u00e4" * (100 * 1000 * 1000 // 6))[0][1]
    before = g.rss()
    began = time.time()
    status, why, _ = raw(g, body)
    need(status == 200 and why["mode"] in ("approximate", "load"), "%d %r" % (status, why))
    need(time.time() - began < 10, "took %.1f s" % (time.time() - began))
    until(lambda: g.rss() < before + (24 << 20), "the memory is given back", 10)
    need(raw(g, bodies("fine")[0][1])[0] == 200, "the next one is not served")


def approximate_because(w, why, **files):
    pods = [w.sim(ip="127.0.0.3")]
    g = gateway(w, pods, model(w, **files))
    chat = [say("user", text(400))]
    first = Asked(g, chat)
    need(first.mode == "approximate", "%r" % first)
    need(any(why in x for x in g.cli("status")["warnings"]), "status says %r" % g.cli("status")["warnings"])
    need(renders(g, "exact") == 0, "rendered")


def test_what_versions_of_the_engine_do_differently_is_not_guessed(w):
    """A text is one for every pod that may get the request: what only some of them do to it makes it approximate."""
    pods = [w.sim(ip="127.0.0.3"), w.sim("--vllm-version", "0.31.1rc1.dev7+g0123456", ip="127.0.0.4")]
    g = gateway(w, pods, model(w, chatml()))
    billing = say("system", "x-anthropic-billing-header: cch=1\n" + text(200))
    need(Asked(g, [say("system", text(200)), say("user", "?")]).mode == "precise", "a chat that all versions read alike")
    need(Asked(g, [billing, say("user", "?")]).mode == "approximate", "0.32 takes the line out, 0.31 does not")
    need(renders(g, "exact") == 1 and renders(g, "unsure") == 1, "not counted")
    g.cli("pod", "drain", pods[1].name)
    need(Asked(g, [billing, say("user", "?")]).mode == "precise", "only 0.32 may get it")


def test_an_engine_whose_version_is_not_known_has_approximate_chats(w):
    pods = [w.sim("--vllm-version", "0.17.2")]
    g = gateway(w, pods, model(w, chatml()))
    need(g.cli("status")["warnings"] == [], "%r" % g.cli("status")["warnings"])
    need(Asked(g, [say("user", text(200))]).mode == "approximate" and renders(g, "unknown_engine") == 1, "rendered")
    need(any("what vLLM 0.17.2 does to a chat is not known" in x for x in g.cli("status")["warnings"]), "status says %r" % g.cli("status")["warnings"])


def test_the_configuration_says_a_version_that_the_pods_do_not(w):
    pods = [w.sim("--vllm-version", "main")]
    g = gateway(w, pods, model(w, chatml()), "engine-version: \"0.33\"")
    need(Asked(g, [say("user", text(200))]).mode == "precise", "not rendered")


def test_without_a_template_chats_are_approximate(w):
    approximate_because(w, "has no chat template")


def test_a_template_that_cannot_be_followed_is_named_with_its_place(w):
    approximate_because(w, "chat_template.jinja:2:", template="{{ messages }}\n{{ messages | frobnicate }}")


def test_a_model_that_engines_render_by_code_is_told_by_its_files(w):
    approximate_because(w, "deepseek_v32", template=chatml(), config={"architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32"})


lib.main(globals())
