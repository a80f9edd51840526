#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What vLLM makes of bodies of /v1/messages and /v1/responses (and of some chats), by its own code: what its template sees.

    DIR/venv/bin/python make_apis.py DIR/model > apis.json

No engine is started. The file was made with vLLM 0.32.0; test_templates.py holds `kvsteer model render` against it."""
import copy
import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
from vllm.config import ModelConfig
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import construct_input_messages, construct_tool_dicts
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.renderers.params import merge_kwargs

# --- the bodies
CASES = []
def add(api, name, **req):
    CASES.append({"name": name, "api": api, "request": {**({"max_tokens": 9999} if api == "messages" else {}), **req}})
def m(name, *messages, **k): add("messages", name, messages=[dict(role=r, content=c) for r, c in messages], **k)
def r(name, input, **k): add("responses", name, input=input, **k)
T = lambda t, **k: dict(type="text", text=t, **k)
U = ("user", "hi")
HDR = "x-anthropic-billing-header: v=1; cch=aaaaa;"
m("plain", U)
m("system-string", U, system="S\nT ")
m("system-empty", U, system="")
m("system-list", U, system=[T("a", cache_control={"type": "ephemeral"}), T(""), T("b")])
m("system-header-list", U, system=[T(HDR), T("You are helpful.")])
m("system-header-list-and-text-in-one", U, system=[T(HDR + "\nrest"), T("B")])
m("system-header-string", U, system=HDR + "\nrest")
m("system-header-string-alone", U, system=HDR)
m("system-header-second", U, system=[T("A"), T(HDR)])
m("inline-system", U, ("system", "be brief"), ("user", "again"), system="S")
m("inline-system-list", U, ("system", [T("a"), T("b"), T(HDR + "\nx")]), ("user", "again"))
m("inline-system-header", U, ("system", HDR + "\nx"), ("user", "again"))
m("inline-system-header-list-only", U, ("system", [T(HDR)]), ("user", "again"))
m("inline-system-empty", U, ("system", ""), ("user", "again"))
m("inline-system-first", ("system", "first"), U)
m("parts-one", ("user", [T("a")]))
m("parts-two", ("user", [T("a"), T("b")]))
m("parts-cache-control", ("user", [T("a", cache_control={"type": "ephemeral"}), T("b", citations=[])]))
m("parts-empty-text", ("user", [T(""), T("b"), T("")]))
m("parts-none", ("user", []), ("assistant", []), ("user", "x"))
m("parts-all-empty", ("user", [T("")]), ("assistant", [T("")]), ("user", "x"))
m("text-empty", ("user", ""))
m("text-null", ("user", [dict(type="text", text=None), T("x")]))
tu = lambda id="tu_1", name="f", input={"b": 1.0, "a": [None, "é\u2028", "\\\"", 1e100, -0.0, 12345678901234567890], "c": {}}: dict(type="tool_use", id=id, name=name, input=input)
tr = lambda content, id="tu_1", **k: dict(type="tool_result", tool_use_id=id, content=content, **k)
m("tool-use", U, ("assistant", [T("I call"), tu()]), ("user", [tr("42")]))
m("tool-use-alone", U, ("assistant", [tu()]), ("user", [tr("42")]))
m("tool-use-two", U, ("assistant", [T("a"), tu(), T("b"), tu("tu_2", "g", {})]), ("user", [tr("42"), tr([T("4"), T(""), T("3")], "tu_2"), T("and?")]))
m("tool-use-no-input", U, ("assistant", [dict(type="tool_use", id="x", name="f")]), ("user", [tr("1", "x")]))
m("tool-use-null-input", U, ("assistant", [dict(type="tool_use", id="x", name="f", input=None)]), ("user", [tr("1", "x")]))
m("tool-use-no-name", U, ("assistant", [dict(type="tool_use", id="x", input={})]), ("user", [tr("1", "x")]))
m("tool-use-no-id", U, ("assistant", [dict(type="tool_use", name="f", input={})]), ("user", [tr("1", "x")]))
m("tool-use-empty-id", U, ("assistant", [dict(type="tool_use", id="", name="f", input={})]), ("user", [tr("1", "x")]))
m("tool-use-by-user", ("user", [T("x"), tu()]), ("user", [tu("z")]))
m("tool-result-null", U, ("assistant", [tu()]), ("user", [dict(type="tool_result", tool_use_id="tu_1")]))
m("tool-result-no-id", U, ("assistant", [tu()]), ("user", [dict(type="tool_result", content="x")]))
m("tool-result-error", U, ("assistant", [tu()]), ("user", [tr("no such file", is_error=True)]))
m("tool-result-other-items", U, ("assistant", [tu()]), ("user", [tr([dict(type="json", x=1), T("a"), dict(type="text")])]))
m("tool-result-empty-list", U, ("assistant", [tu()]), ("user", [tr([])]))
m("tool-result-reference", U, ("assistant", [tu()]), ("user", [tr([T("found"), dict(type="tool_reference", tool_name="g"), dict(type="tool_reference", name="h"), dict(type="tool_reference")])]))
m("tool-result-by-assistant", U, ("assistant", [T("x"), tr("42"), tr([T("a"), {"n": 1.5, "b": True, "z": None}]), tr(None), tr([])]))
m("tool-result-between-texts", U, ("assistant", [tu()]), ("user", [T("before"), tr("42"), T("after")]))
m("tool-reference-block", ("user", [dict(type="tool_reference", tool_name="x"), T("y")]))
m("thinking", U, ("assistant", [dict(type="thinking", thinking="hm", signature="s"), T("a"), tu()]), ("user", [tr("1")]))
m("thinking-two", U, ("assistant", [dict(type="thinking", thinking="hm"), dict(type="thinking", thinking=""), dict(type="thinking", thinking="!"), T("a"), T("b")]), U)
m("thinking-alone", U, ("assistant", [dict(type="thinking", thinking="hm")]), U)
m("thinking-empty", U, ("assistant", [dict(type="thinking", thinking=""), T("a")]), U)
m("thinking-null", U, ("assistant", [dict(type="thinking", thinking=None), T("a")]), U)
m("thinking-by-user", ("user", [dict(type="thinking", thinking="x")]), ("user", "y"))
m("thinking-and-text-by-user", ("user", [dict(type="thinking", thinking="x"), T("y")]))
m("redacted", U, ("assistant", [dict(type="redacted_thinking", data="xyz"), T("a")]), U)
m("redacted-alone", U, ("assistant", [dict(type="redacted_thinking", data="xyz")]), U)
m("prefill", U, ("assistant", "The answer is"))
m("assistant-first", ("assistant", "a"), U)
tool = lambda name="f", **k: {**dict(name=name, description="what %s \"does\"" % name, input_schema={"type": "object", "properties": {"b": {"type": "number", "default": 1.0}}, "required": ["b"]}), **k}
m("tools", U, tools=[tool(), tool("g")], tool_choice={"type": "auto"})
m("tools-no-type", U, tools=[tool(input_schema={"properties": {}})])
m("tools-empty-schema", U, tools=[tool(input_schema={})])
m("tools-no-description", U, tools=[dict(name="f", input_schema={"type": "object"})])
m("tools-null-description", U, tools=[tool(description=None, strict=None)])
m("tools-strict-defer", U, tools=[tool(strict=True, defer_loading=True), tool("g", strict=False, defer_loading=False)])
m("tools-extra", U, tools=[tool(cache_control={"type": "ephemeral"}, type="custom")])
m("tools-empty", U, tools=[])
m("tools-choice-none", U, tools=[tool()], tool_choice={"type": "none"})
m("tools-server", U, tools=[dict(type="web_search_20250305", name="web_search", max_uses=5)])
m("tools-changes", U, ("system", [dict(type="tool_addition", tool=dict(type="tool_definition", definition=tool("h"))), dict(type="tool_removal", tool=dict(type="tool_reference", name="f"))]), U, tools=[tool(), tool("g", defer_loading=True)])
m("tools-added-by-name", U, ("system", [T("more"), dict(type="tool_addition", tool=dict(type="tool_reference", name="g"))]), U, tools=[tool(), tool("g", defer_loading=True)])
m("tools-changed-twice", U, ("system", [dict(type="tool_removal", tool=dict(type="tool_reference", name="f"))]), U, ("system", [dict(type="tool_addition", tool=dict(type="tool_definition", definition=tool("f", description="new")))]), tools=[tool(), tool("g")])
m("tools-change-unknown", U, ("system", [dict(type="tool_addition", tool=dict(type="tool_reference", name="q"))]), tools=[tool()])
m("tools-change-by-user", ("user", [dict(type="tool_removal", tool=dict(type="tool_reference", name="f"))]), tools=[tool()])
m("thinking-disabled", U, thinking={"type": "disabled"})
m("thinking-enabled", U, thinking={"type": "enabled", "budget_tokens": 2000})
m("thinking-adaptive-effort", U, thinking={"type": "adaptive"}, output_config={"effort": "high"})
m("effort-and-disabled", U, thinking={"type": "disabled"}, output_config={"effort": "high"})
m("effort-null", U, output_config={"effort": None})
m("effort-and-kwargs", U, output_config={"effort": "low"}, chat_template_kwargs={"enable_thinking": False, "x": 1})
m("kwargs", U, chat_template_kwargs={"a": None, "b": "auto", "c": [1], "add_generation_prompt": False, "tools": 1})
m("format", U, output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}})
m("bad-role", ("tool", "x"))
m("bad-block", ("user", [dict(type="document", source={})]))
m("bad-null", ("user", None))
m("bad-content", ("user", 5))
m("bad-string-part", ("user", ["x"]))
m("no-messages")
add("messages", "messages-missing")
m("unknown-members", U, foo={"bar": 1}, metadata={"user_id": "u"}, top_k=5, continue_final_message=True, add_generation_prompt=False, reasoning_effort="high")
m("image", ("user", [dict(type="image", source=dict(type="base64", media_type="image/png", data="AAAA")), T("x")]))

E = lambda role, c, **k: dict(role=role, content=c, **k)
it = lambda t, **k: dict(type="input_text", text=t, **k)
ot = lambda t, **k: dict(type="output_text", text=t, **k)
M = lambda role, c, **k: dict(type="message", role=role, content=c, **k)
fc = lambda cid="c1", name="f", args="{\"b\": 1.0, \"a\": [null, \"\\u00e9\"]}", **k: dict(type="function_call", call_id=cid, name=name, arguments=args, **k)
fo = lambda o, cid="c1", **k: dict(type="function_call_output", call_id=cid, output=o, **k)
rs = lambda t, **k: {**dict(type="reasoning", summary=[], content=[dict(type="reasoning_text", text=t)]), **k}
r("string", "hi")
r("string-empty", "")
r("instructions", "hi", instructions="I\n")
r("instructions-empty", "hi", instructions="")
r("instructions-null", "hi", instructions=None)
r("easy", [E("user", "hi"), E("assistant", "yes"), E("user", "go")])
r("easy-with-type", [M("user", "hi"), M("assistant", "yes"), M("user", "go")])
r("system-and-developer", [E("system", "S"), E("developer", "D"), E("user", "hi")], instructions="I")
r("developer-first", [E("developer", "D"), E("user", "hi")])
r("developer-parts", [E("developer", [it("D"), it("E")]), E("user", "hi"), E("developer", "F")])
r("parts", [E("user", [it("a"), it("b"), it("")])])
r("parts-typed", [M("user", [it("a", prompt_cache_breakpoint={"mode": "explicit"}), it("b", x=1)], status="completed", id="m1")])
r("parts-text-type", [E("user", [dict(type="text", text="a")])])
r("assistant-parts", [E("user", "hi"), M("assistant", [ot("a", annotations=[]), ot("b", annotations=[])], id="m", status="completed"), E("user", "x")])
r("assistant-parts-bare", [E("user", "hi"), M("assistant", [ot("a")]), E("user", "x")])
r("assistant-parts-untyped", [E("user", "hi"), E("assistant", [ot("a")]), E("user", "x")])
r("assistant-parts-untyped-id", [E("user", "hi"), E("assistant", [ot("a", annotations=[])], id="m", status="completed"), E("user", "x")])
r("assistant-input-text", [E("user", "hi"), M("assistant", [it("a"), it("b")]), E("user", "x")])
r("assistant-input-text-untyped", [E("user", "hi"), E("assistant", [it("a"), it("b")]), E("user", "x")])
r("assistant-refusal", [E("user", "hi"), M("assistant", [dict(type="refusal", refusal="no")]), E("user", "x")])
r("assistant-refusal-second", [E("user", "hi"), M("assistant", [ot("a"), dict(type="refusal", refusal="no")]), E("user", "x")])
r("assistant-empty-parts", [E("user", "hi"), M("assistant", []), E("user", "x")])
r("assistant-empty-parts-untyped", [E("user", "hi"), E("assistant", []), E("user", "x")])
r("assistant-empty-string", [E("user", "hi"), E("assistant", ""), E("user", "x")])
r("assistant-two", [E("user", "hi"), E("assistant", "a"), E("assistant", "b"), M("assistant", [ot("c")]), E("user", "x")])
r("assistant-null", [E("user", "hi"), E("assistant", None), E("user", "x")])
r("call", [E("user", "hi"), fc(), fo("42")])
r("call-with-id", [E("user", "hi"), fc("c9", status="completed"), fo("42", "c9", id="fo1", status="completed")])
r("call-item-id", [E("user", "hi"), {**fc(), "id": "fc_1"}, fo("42", id="fco_1", status="completed")])
r("call-after-text", [E("user", "hi"), M("assistant", [ot("I call")]), fc(), fo("42"), E("user", "x")])
r("call-after-easy-text", [E("user", "hi"), E("assistant", "I call"), fc(), fc("c2", "g", "{}"), fo("42"), fo("43", "c2")])
r("calls-two", [E("user", "hi"), fc(), fc("c2", "g", ""), fo("42"), fo("43", "c2"), fc("c3"), fo("x", "c3")])
r("call-then-text", [E("user", "hi"), fc(), M("assistant", [ot("late")]), fo("42")])
r("call-then-easy-text", [E("user", "hi"), fc(), E("assistant", "late"), fo("42")])
r("call-namespace", [E("user", "hi"), fc(namespace="crm"), fo("42")])
r("call-namespace-empty", [E("user", "hi"), fc(namespace=""), fo("42")])
r("call-first", [fc(), fo("42")])
r("call-bad-arguments", [E("user", "hi"), fc(args="{oops"), fo("42")])
r("call-no-id", [E("user", "hi"), dict(type="function_call", name="f", arguments="{}")])
r("call-no-arguments", [E("user", "hi"), dict(type="function_call", name="f", call_id="x")])
r("output-parts", [E("user", "hi"), fc(), fo([it("a"), it("b")])])
r("output-parts-id", [E("user", "hi"), fc(), fo([it("a"), it("b")], id="x", status="completed")])
r("output-parts-image", [E("user", "hi"), fc(), fo([it("a"), dict(type="input_image", image_url="data:image/png;base64,AAAA", detail="auto")])])
r("output-empty", [E("user", "hi"), fc(), fo("")])
r("output-empty-list", [E("user", "hi"), fc(), fo([])])
r("output-no-call-id", [E("user", "hi"), fc(), dict(type="function_call_output", output="x")])
r("output-null-call-id", [E("user", "hi"), fc(), dict(type="function_call_output", output="x", call_id=None)])
r("output-no-output", [E("user", "hi"), fc(), dict(type="function_call_output", call_id="c1")])
r("custom", [E("user", "hi"), dict(type="custom_tool_call", call_id="c1", name="sh", input="ls \"é\"\n"), dict(type="custom_tool_call_output", call_id="c1", output="x")])
r("custom-empty", [E("user", "hi"), dict(type="custom_tool_call", call_id="c1", name="sh", input="", id="i"), dict(type="custom_tool_call_output", call_id="c1", output=[it("x")])])
r("reasoning", [E("user", "hi"), rs("hm"), M("assistant", [ot("a")]), E("user", "x")])
r("reasoning-easy", [E("user", "hi"), rs("hm"), E("assistant", "a"), E("user", "x")])
r("reasoning-call", [E("user", "hi"), rs("hm"), fc(), fo("42"), rs("so"), M("assistant", [ot("a")])])
r("reasoning-message-call", [E("user", "hi"), rs("hm"), M("assistant", [ot("a")]), fc(), fo("42")])
r("reasoning-after-text", [E("user", "hi"), M("assistant", [ot("a")]), rs("hm"), E("user", "x")])
r("reasoning-two", [E("user", "hi"), rs("a"), rs("b"), M("assistant", [ot("c")]), E("user", "x")])
r("reasoning-parts", [E("user", "hi"), rs("a", content=[dict(type="reasoning_text", text="a"), dict(type="reasoning_text", text="b")]), E("user", "x")])
r("reasoning-summary", [E("user", "hi"), dict(type="reasoning", id="rs", summary=[dict(type="summary_text", text="s"), dict(type="summary_text", text="t")]), E("assistant", "x"), E("user", "x")])
r("reasoning-empty", [E("user", "hi"), dict(type="reasoning", summary=[]), E("assistant", "x"), E("user", "x")])
r("reasoning-empty-content", [E("user", "hi"), dict(type="reasoning", summary=[dict(type="summary_text", text="s")], content=[]), E("assistant", "x"), E("user", "x")])
r("reasoning-null-content", [E("user", "hi"), dict(type="reasoning", summary=[dict(type="summary_text", text="s")], content=None, encrypted_content=None), E("assistant", "x"), E("user", "x")])
r("reasoning-encrypted", [E("user", "hi"), rs("a", encrypted_content="xyz"), E("user", "x")])
r("reasoning-encrypted-empty", [E("user", "hi"), rs("a", encrypted_content=""), E("user", "x")])
r("reasoning-no-summary", [E("user", "hi"), dict(type="reasoning", content=[dict(type="reasoning_text", text="a")]), E("user", "x")])
r("partial-message", [E("user", "hi"), M("assistant", [ot("The answer is")], status="incomplete")])
r("partial-message-in-progress", [E("user", "hi"), M("assistant", [ot("The answer is ")], status="in_progress")])
r("partial-string", [E("user", "hi"), M("assistant", "The answer is", status="incomplete")])
r("partial-easy", [E("user", "hi"), E("assistant", "The answer is", status="incomplete")])
r("partial-input-text", [E("user", "hi"), M("assistant", [it("The answer")], status="incomplete")])
r("partial-user", [E("user", "hi"), M("user", [it("The answer")], status="incomplete")])
r("partial-user-easy", [E("user", "hi"), M("user", "The answer", status="incomplete")])
r("partial-system", [E("user", "hi"), M("system", [it("The answer")], status="in_progress")])
r("partial-reasoning", [E("user", "hi"), rs("hm", status="in_progress")])
r("partial-reasoning-after-text", [E("user", "hi"), M("assistant", [ot("a")]), rs("hm", status="incomplete")])
r("partial-call", [E("user", "hi"), fc(status="in_progress")])
r("partial-not-last", [E("user", "hi"), M("assistant", [ot("a")], status="incomplete"), E("user", "x")])
ft = lambda name="f", **k: {**dict(type="function", name=name, description="what \"%s\" does" % name, parameters={"type": "object", "properties": {"b": {"type": "number", "default": 1.0}}}), **k}
r("tools", "hi", tools=[ft(strict=True), ft("g", strict=None)])
r("tools-minimal", "hi", tools=[dict(type="function", name="f")])
r("tools-no-strict", "hi", tools=[dict(type="function", name="f", parameters=None, description=None)])
r("tools-defer", "hi", tools=[ft(defer_loading=True, strict=False)])
r("tools-more", "hi", tools=[ft(strict=True, output_schema={"a": 1}, allowed_callers=["direct"], foo=1)])
r("tools-custom", "hi", tools=[dict(type="custom", name="sh", description="a shell"), dict(type="custom", name="py", format={"type": "text"}, defer_loading=True)])
r("tools-grammar", "hi", tools=[dict(type="custom", name="sh", format=dict(type="grammar", syntax="lark", definition="x"))])
r("tools-namespace", "hi", tools=[dict(type="namespace", name="crm", description="d", tools=[dict(type="function", name="f", description="x", parameters={"a": 1}, strict=True), dict(type="custom", name="c"), dict(type="function", name="g")])])
r("tools-web-only", "hi", tools=[dict(type="web_search_preview")])
r("tools-mixed", "hi", tools=[dict(type="web_search"), ft(), dict(type="mcp", server_label="x", server_url="http://x")])
r("tools-empty", "hi", tools=[])
r("tools-null", "hi", tools=None)
r("tools-choice-none", "hi", tools=[ft()], tool_choice="none")
r("tools-choice-named", "hi", tools=[ft()], tool_choice={"type": "function", "name": "f"})
r("effort", "hi", reasoning={"effort": "high"})
r("effort-none", "hi", reasoning={"effort": "none", "summary": "auto"})
r("effort-null", "hi", reasoning={"effort": None})
r("effort-kwargs", "hi", reasoning={"effort": "low"}, chat_template_kwargs={"enable_thinking": False, "x": 1})
r("kwargs", "hi", chat_template_kwargs={"documents": [{"title": "a", "text": "b"}], "add_generation_prompt": False, "continue_final_message": True, "reasoning_effort": "z"})
r("prompt", "hi", prompt={"id": "p"})
r("previous-input-messages", "hi", previous_input_messages=[{"role": "user", "content": "old"}])
r("previous-response", "hi", previous_response_id="resp_1")
r("truncation", "hi", truncation="auto")
r("item-reference", [E("user", "hi"), dict(type="item_reference", id="x")])
r("item-reference-untyped", [E("user", "hi"), dict(id="x")])
r("web-search-call", [E("user", "hi"), dict(type="web_search_call", id="ws", status="completed", action=dict(type="search", query="x"))])
r("unknown-item", [E("user", "hi"), dict(type="foo", x=1)])
r("message-extras", [dict(role="user", content="hi", name="bob", tool_calls=[], reasoning="x", foo=1), dict(role="assistant", content="a", reasoning="R", reasoning_content="Q", tool_calls=[dict(id="x", type="function", function=dict(name="f", arguments="{}"))], phase="commentary"), E("user", "x")])
r("developer-tools", [dict(role="developer", content="D", tools=[dict(type="function", function=dict(name="x"))]), E("user", "x")])
r("image", [E("user", [it("a"), dict(type="input_image", image_url="data:image/png;base64,AAAA")])])
r("file", [E("user", [it("a"), dict(type="input_file", file_id="x")])])
r("role-tool", [E("user", "hi"), E("tool", "x")])
r("input-empty-list", [])
r("input-empty-list-instructions", [], instructions="I")
r("input-null", None)
r("input-strings", ["a", "b"])
add("responses", "input-missing")
r("billing", [E("system", "x-anthropic-billing-header: a\nS"), E("user", [it("x-anthropic-billing-header: a\nS")])], instructions="x-anthropic-billing-header: z")
r("billing-parts", [E("system", [it("x-anthropic-billing-header: a\nS")]), E("user", "hi")])
r("unknown-members", "hi", foo=1, messages=[E("user", "no")], system="no", add_generation_prompt=False, continue_final_message=True, reasoning_effort="high", documents=[{}], store=False, background=False)
c = lambda name, messages, **k: add("chat", name, messages=messages, **k)
c("chat-part-extras", [E("user", [T("a", cache_control={"type": "ephemeral"}), T("b", uuid=None, name="n", z=1, title="t")]), E("assistant", [T("b", x=1)]), E("system", [T("x-anthropic-billing-header: q\nS", x=2)]), dict(role="tool", tool_call_id="t", content=[T("r", x=1)])])
c("chat-tool-reference", [E("user", "hi"), dict(role="tool", tool_call_id="t", content=[T("r"), dict(type="tool_reference", name="g")])])
c("chat-tools-defer", [E("user", "hi")], tools=[dict(type="function", defer_loading=True, function=dict(name="f")), dict(type="function", function=dict(name="g", strict=True, defer_loading=False, x=1)), dict(type="function", defer_loading=False, function=dict(name="h", defer_loading=True, parameters={}))])
c("chat-refusal", [E("user", "hi"), E("assistant", [dict(type="refusal", refusal="no"), T("yes")])])
c("chat-null-part", [E("user", [dict(type="text", text=None), T("a")])])


# --- what becomes of them
def plain(x):
    return json.loads(json.dumps(x, default=lambda o: o.model_dump() if hasattr(o, "model_dump") else list(o)))


def finish(config, make):
    """Each content format anew: some of what a request holds can be walked only once."""
    request, _, tools = make()
    kwargs = request.build_chat_params(None, "auto").with_defaults(merge_kwargs(None, dict(tools=tools, tokenize=False))).chat_template_kwargs
    del kwargs["tokenize"]
    out = {fmt: parse_chat_messages(make()[1], config, content_format=fmt)[0] for fmt in ("string", "openai")}
    kwargs = {k: v for k, v in kwargs.items() if (k, v) not in (("add_generation_prompt", True), ("continue_final_message", False))}
    return plain({**({"kwargs": kwargs} if kwargs else {}), **out})


def chat(c):
    return c, c.messages, None if c.tools is None else [t.model_dump() for t in c.tools]


def of_messages(config, body):
    def way(merge, effort):
        return finish(config, lambda: chat(AnthropicServingMessages.to_chat_completion_request(
            AnthropicMessagesRequest.model_validate(copy.deepcopy(body)), merge_inline_system=merge, disabled_thinking_effort=effort)))
    base = way(False, "none")
    for name, other in ("merged", way(True, "none")), ("low", way(False, "low")):
        more = {k: v for k, v in other.items() if base.get(k) != v}
        if more:
            base[name] = more
    return base


def of_responses(config, body):
    def make():
        r = ResponsesRequest.model_validate(copy.deepcopy(body))
        return r, construct_input_messages(request_instructions=r.instructions, request_input=r.input), construct_tool_dicts(r.tools, r.tool_choice)
    return finish(config, make)


def of_chat(config, body):
    return finish(config, lambda: chat(ChatCompletionRequest.model_validate(copy.deepcopy(body))))


def main():
    config = ModelConfig(model=sys.argv[1], max_model_len=8192, dtype="float32")
    lines = []
    for case in CASES:
        try:
            got = {"messages": of_messages, "responses": of_responses, "chat": of_chat}[case["api"]](config, {"model": "m", **case["request"]})
            if case["name"] in ("tool-use-no-id", "tool-use-empty-id", "previous-response"):
                got = {"unsure": True}  # by the clock, by what is stored
        except Exception as e:
            why = "%s: %s" % (type(e).__name__, str(e).split("\n")[0][:80])
            got = {"refused": "media" if "Failed to load image" in why else why}
        lines.append(json.dumps({**case, **got}, separators=(",", ":")))
    print("[\n" + ",\n".join(lines) + "\n]")


if __name__ == "__main__":
    main()
