# SPDX-License-Identifier: Apache-2.0
"""What `kvsteer model render` is held against: jinja2, set up as transformers sets it up, and in front of it what vLLM does
to the body of a chat completion. Text, or Refused for whatever the engine would answer with an error."""
import datetime
import functools
import json

import jinja2
import jinja2.ext
import jinja2.nodes as N
import jinja2.sandbox


class Refused(Exception):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return N.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


def environment(now):
    def raise_exception(message):
        raise jinja2.TemplateError(message)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime(form)
    return env


# --- does the template walk content part by part?
class Unclear(Exception):
    """a target that is no name stands in the way: content is a string then"""


def bare(e):
    while isinstance(e, N.Test) or isinstance(e, N.Filter) and e.node or isinstance(e, N.Getitem) and isinstance(e.arg, N.Slice):
        e = e.node
    return e


def is_name(e, names):
    e = bare(e)
    return isinstance(e, N.Name) and e.ctx == "load" and e.name in names


def is_content(e, items):
    e = bare(e)
    if isinstance(e, N.Getattr) and e.attr == "content" or isinstance(e, N.Getitem) and isinstance(e.arg, N.Const) and e.arg.value == "content":
        return isinstance(e.node, N.Name) and e.node.ctx == "load" and e.node.name in items
    return False


def target_name(t):
    if not isinstance(t, N.Name):
        raise Unclear
    return t.name


def walks_parts(tree):
    lists, before = {"messages"}, None
    while lists != before:
        before = set(lists)
        lists |= {target_name(a.target) for a in tree.find_all(N.Assign) if is_name(a.node, lists)}
    loops = list(tree.find_all(N.For))
    items = {target_name(f.target) for f in loops if is_name(f.iter, lists)}
    given, inside = {}, set()
    for m in tree.find_all(N.Macro):
        params = [a.name for a in m.args]
        full = set()
        for c in tree.find_all(N.Call):
            if isinstance(c.node, N.Name) and c.node.name == m.name:
                args = list(zip(params, c.args)) + [(k.key, k.value) for k in c.kwargs if k.key in params]
                full |= {name for name, value in args if is_content(value, items)}
        for f in m.find_all(N.For):
            inside.add(f)
            if full:
                given[f] = full
    for f in loops:
        over = f.iter.name if isinstance(f.iter, N.Name) else None
        if is_content(f.iter, items) or over in given.get(f, ()) or over == "content" and f not in inside:
            target_name(f.target)
            return True
    return False


def wants_parts(tree):
    try:
        return walks_parts(tree)
    except Unclear:
        return False


# --- the request as the template gets it
TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}
MEDIA = {"image_url": "image", "input_audio": "audio", "video_url": "video"}
KNOWN = ("audio_embeds audio_url closed data file image_embeds image_pil image_url input_audio name prompt_cache_breakpoint refusal text thinking type "
         "uuid video_embeds video_url").split()
BILLING = "x-anthropic-billing-header"


def some(d, *keys):
    return {k: d[k] for k in keys if k in d}


def content_of(message, parts):
    given = message.get("content")
    out = []
    for p in [] if given is None else [given] if isinstance(given, str) else given:
        p = {"type": "text", "text": p} if isinstance(p, str) else dict(p)
        if message["role"] == "system" and p["type"] == "text" and p["text"].startswith(BILLING):
            p["text"] = p["text"].partition("\n")[2]
            if not p["text"]:
                continue
        if p["type"] in MEDIA:
            if not parts:
                raise Refused("media in a string")
            out.append({"type": MEDIA[p["type"]]})
        elif p["type"] == "tool_reference":
            out.append({"type": "tool_reference", "name": p.get("name")} if parts else {"text": p["name"]})
        elif p["type"] not in TEXTS:
            raise Refused("type of a part")
        elif p.get(TEXTS[p["type"]]) is not None:
            out.append({"type": "text", "text": p[TEXTS[p["type"]]], **{k: v for k, v in p.items() if k not in KNOWN}})
    if parts and not (message["role"] == "tool" and all("text" in p for p in out)):
        return out
    return "\n".join(p["text"] for p in out if parts or p["text"])


def call_of(call):
    function = some(call["function"], "arguments", "name")
    try:
        arguments = json.loads(function["arguments"])
    except (KeyError, TypeError, ValueError):
        arguments = function.get("arguments")
    function["arguments"] = arguments if isinstance(arguments, dict) else {}
    return {k: function if k == "function" else call[k] for k in ("id", "function", "type") if k in call}


def message_of(m, parts):
    out = {"role": m["role"], "content": content_of(m, parts)}
    thought = m["reasoning"] if m.get("reasoning") is not None else m.get("reasoning_content")
    if m["role"] == "assistant":
        if m.get("tool_calls"):
            out["tool_calls"] = [call_of(c) for c in m["tool_calls"]]
        if thought is not None and m.get("content", "") is not None:
            out["reasoning"] = out["reasoning_content"] = thought
    if m["role"] == "tool":
        out.update(some(m, "tool_call_id"))
    out.update({k: m[k] for k in ("name", "task") if isinstance(m.get(k), str)})
    if m["role"] == "developer":
        out["tools"] = m.get("tools")
    return out


def tool_of(tool):
    f = tool["function"]
    kept = {"name": f["name"], "description": f.get("description"), "parameters": f.get("parameters")}
    kept.update({k: f[k] for k in ("strict", "defer_loading") if f.get(k) is not None})
    outer = {"defer_loading": tool["defer_loading"]} if tool.get("defer_loading") is not None else {}
    return {"type": tool.get("type", "function"), "function": {**kept, **{k: v for k, v in outer.items() if k not in kept}}, **outer}


def tokens_of(config):
    return {k: v["content"] if isinstance(v, dict) else v for k, v in config.items() if k.endswith("_token") and v is not None}


def variables_of(request, config):
    kwargs = request.get("chat_template_kwargs") or {}
    if "chat_template" in kwargs or "tokenize" in kwargs or request.get("tools") == []:
        raise Refused("validation")
    out = tokens_of(config)
    out["tools"] = [tool_of(t) for t in request["tools"]] if request.get("tools") else None
    own = {"add_generation_prompt": True, **some(request, "add_generation_prompt", "documents", "reasoning_effort")}
    if request.get("reasoning_effort") is not None and "enable_thinking" not in kwargs:
        own["enable_thinking"] = request["reasoning_effort"] != "none"
    for given in (kwargs, own):
        out.update({k: v for k, v in given.items() if v is not None and v != "auto"})
    return out


def merge_developers(messages, source):
    if "'developer'" in source or '"developer"' in source or not any(m["role"] == "developer" for m in messages):
        return messages
    messages = [{**{k: v for k, v in m.items() if k != "tools"}, "role": "system"} if m["role"] == "developer" else m for m in messages]
    if [m["role"] == "system" for m in messages].index(True) == 0 and sum(m["role"] == "system" for m in messages) == 1:
        return messages
    texts = ["\n".join(p["text"] for p in m["content"] if "text" in p) if isinstance(m["content"], list) else m["content"] for m in messages if m["role"] == "system"]
    return [{"role": "system", "content": "\n\n".join(t for t in texts if t)}] + [m for m in messages if m["role"] != "system"]


MARK = "CONTINUE_FINAL_MESSAGE_TAG "


@functools.lru_cache(maxsize=None)
def compiled(source, now):
    env = environment(now)
    return env.from_string(source), wants_parts(env.parse(source))


def load(source, now):
    try:
        return compiled(source, now)
    except Exception as e:
        raise Refused("load: %s" % e)


def render(source, request, config, now):
    template, parts = load(source, now)
    messages = [message_of(m, parts) for m in request["messages"]]
    return finish(source, template, messages, {**variables_of(request, config), **some(request, "continue_final_message")})


def finish(source, template, messages, variables):
    messages = merge_developers(messages, source)
    last = None
    if variables.pop("continue_final_message", False):
        if messages[-1]["content"] == [] or "content" not in source:
            raise Refused("nothing to continue")
        if variables.get("add_generation_prompt"):
            raise Refused("both")
        holder = messages[-1] if isinstance(messages[-1]["content"], str) else messages[-1]["content"][-1]
        key = "content" if holder is messages[-1] else "text"
        last = holder[key]
        holder[key] += MARK
    try:
        text = template.render({"documents": None, **variables, "messages": messages})
    except Exception as e:
        raise Refused("render: %s" % e)
    if last is None:
        return text
    at = text.rfind(MARK.strip())
    if at < 0 or last.strip() not in text:
        raise Refused("cut")
    return text[:at] if text.startswith(MARK, at) else text[:at].rstrip()


# --- requests of other APIs, made chat requests by vLLM 0.32 (recorded)
def system_first(source):
    """Does vLLM move system messages to the front for this template? It tries, with a plain jinja2."""
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    try:
        env.from_string(source).render(messages=[{"role": r, "content": "t"} for r in ("system", "user") * 2], add_generation_prompt=False)
        return False
    except Exception:
        return True


def none_is_low(source, config):
    def of(effort):
        try:
            return render(source, {"messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": effort}, config, 0)
        except Refused:
            return None
    none = of("none")
    return none is None or none in [of(e) for e in ("low", "medium", "high", "xhigh", "max")]


@functools.lru_cache(maxsize=None)
def habits(source, config):
    return system_first(source), none_is_low(source, json.loads(config))


def render_recorded(source, case, config, now):
    if "string" not in case:
        raise Refused("by the engine")
    template, parts = load(source, now)
    first, low = habits(source, json.dumps(config))
    case = {**case, **(case.get("merged", {}) if first else {}), **(case.get("low", {}) if low else {})}
    messages = case["openai" if parts else "string"]
    if not messages:
        raise Refused("no messages")
    variables = {"add_generation_prompt": True, **{k: v for k, v in case.get("kwargs", {}).items() if v is not None and v != "auto"}}
    return finish(source, template, json.loads(json.dumps(messages)), {**tokens_of(config), "tools": None, **variables})
