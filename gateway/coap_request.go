// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/coap"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

const wellKnown = ".well-known/core"

// answer carries out a request. The register is asked each time, as on the HTTPS door.
func (d *dialogue) answer(m *coap.Message) coap.Message {
	if m.Has(coap.ProxyURI) || m.Has(coap.ProxyScheme) {
		return diagnose(coap.ProxyingForbidden, "coap.proxy", "this door is no proxy")
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.g.cfg.Limits.Opening)
	defer cancel()
	if err := d.g.again(ctx, d.link); err != nil {
		d.g.refused(d.link.peer, "door.register", err.Error())
		return diagnose(coap.Forbidden, "door.register", "this certificate is no longer admitted")
	}
	path, ok := m.Path()
	if !ok {
		return diagnose(coap.BadRequest, "coap.path", "a segment of the path is no name")
	}
	root, topic, own := below(d.link.peer, path)
	switch {
	case path == wellKnown && m.Code == coap.GET:
		return cut(m, links(m))
	case own && m.Code == coap.POST:
		return d.take(m, root, topic)
	case strings.HasPrefix(path, "ot/1/") && !own:
		d.g.refused(d.link.peer, "topic.own", path)
		return diagnose(coap.Forbidden, "topic.own", "%s is not below the root of this device", path)
	case path == wellKnown || own:
		return diagnose(coap.MethodNotAllowed, "coap.method", "%s does not know method %d", path, m.Code)
	}
	return diagnose(coap.NotFound, "coap.path", "there is no %s at the device door", path)
}

// take is the third way for messages. Its 2.04 is a receipt: the message is on disk.
func (d *dialogue) take(m *coap.Message, root, topic string) coap.Message {
	g, p := d.g, d.link.peer
	block, _, _ := m.Block(coap.Block1)
	messages := 1
	if block.More {
		messages = 0
	}
	if o := g.quotas.spend(p, messages, len(m.Payload)); o != nil {
		g.refused(p, o.rule, topic)
		return trouble(o.problem(), o.wait)
	}
	if len(topic) > g.cfg.Limits.Topic || !mayPublish(topic) || mqtt.CheckTopic(topic) != nil {
		g.refused(p, "topic.own", topic)
		return diagnose(coap.Forbidden, "topic.own", "a device may not write to %s, or no part of the platform keeps it", root+topic)
	}
	rec := Record{Tenant: p.Tenant, Device: p.Device, Topic: topic, At: g.cfg.Clock.Now().UnixMilli()}
	if a := rec.describe(m); a != nil {
		return *a
	}
	body, held, a := d.body(m, topic)
	if a != nil {
		return *a
	}
	defer g.memory.give(held)
	if len(body) == 0 {
		return diagnose(coap.BadRequest, "message.form", "a message without a payload")
	}
	rec.Body = body
	done := make(chan error, 1)
	g.batch.add(receipt{done: done}, rec)
	if err := <-done; err != nil {
		if problem.Of(err).Kind == problem.KindInternal {
			err = problem.Unavailable("The message could not be stored.").Because(err)
		}
		return trouble(err, comeBack)
	}
	changed := coap.Message{Code: coap.Changed}
	if m.Has(coap.Block1) {
		changed.SetBlock(coap.Block1, block)
	}
	return changed
}

// describe takes from the options of a request what its message is: the format, and the device's own count of its starts
// and messages as arguments boot and seq.
func (r *Record) describe(m *coap.Message) *coap.Message {
	if format, ok := m.Uint(coap.ContentFormat); ok {
		if r.Type, ok = coap.MediaType(format); !ok {
			return ptr(diagnose(coap.UnsupportedFormat, "message.form", "content format %d is not known here", format))
		}
	}
	for _, q := range m.Query() {
		name, value, _ := strings.Cut(q, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case name == "boot" && err == nil:
			r.Boot = n
		case name == "seq" && err == nil:
			r.Seq = n
		default:
			return ptr(diagnose(coap.BadRequest, "message.form", "the argument %q is neither boot nor seq, or no number", q))
		}
	}
	return nil
}

// trouble says what went wrong as the HTTPS door does, whose statuses CoAP shares.
func trouble(err error, wait time.Duration) coap.Message {
	e := problem.Of(err)
	status := problem.Kinds[e.Kind].Status
	rule := e.Rule
	if rule == "" {
		rule = string(e.Kind)
	}
	a := diagnose(coap.Code(status/100<<5|status%100), rule, "%s", e.Text)
	if e.Kind == problem.KindLimited || e.Kind == problem.KindUnavailable {
		a.Set(coap.MaxAge, uint32(wait/time.Second)+1)
	}
	return a
}

// resources are what /.well-known/core lists (RFC 6690), below the device's root.
var resources = []struct{ path, title string }{
	{"tele", "telemetry: tele/<stream>"}, {"event", "events: event/<name>"}, {"state/reported", "the reported half of the twin"},
	{wire.TopicInv, "what is installed"}, {"cmd", "answers to commands: cmd/<id>/ack, cmd/<id>/res"}, {"ota", "progress of updates: ota/<release>/status"},
	{wire.TopicNotice, "what became of notices"},
}

func links(m *coap.Message) coap.Message {
	if want, ok := m.Uint(coap.Accept); ok && want != coap.LinkFormat {
		return diagnose(coap.NotAcceptable, "coap.accept", "this is told in content format %d only", coap.LinkFormat)
	}
	var list []string
	for _, r := range resources {
		list = append(list, fmt.Sprintf("</%s%s>;rt=\"ot.%s\";title=\"%s\"", wire.Root, r.path, strings.SplitN(r.path, "/", 2)[0], r.title))
	}
	a := coap.Message{Code: coap.Content, Payload: []byte(strings.Join(list, ","))}
	a.Set(coap.ContentFormat, coap.LinkFormat)
	return a
}
