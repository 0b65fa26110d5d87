// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"strings"

	"github.com/openthings-platform/openthings/wire"
)

// below cuts the root of p's own tree off a topic or filter, in either spelling: ot/1/me/… or ot/1/<tenant>/<device>/….
func below(p Peer, topic string) (root, rest string, ok bool) {
	if rest, ok = strings.CutPrefix(topic, wire.Root); ok {
		return wire.Root, rest, true
	}
	own := "ot/1/" + p.Tenant + "/" + p.Device + "/"
	if rest, ok = strings.CutPrefix(topic, own); ok {
		return topic[:len(own)], rest, true
	}
	return "", "", false
}

// Uplinks lists the beginnings of all topics, below its root, on which a device may publish. Whoever is handed the
// messages has to take each of them: what is acknowledged must not be dropped.
func Uplinks() []string {
	return []string{"tele/", "event/", "state/", wire.TopicInv, "cmd/", "ota/", wire.TopicNotice}
}

// mayPublish says whether a device may write to a topic below its root; see package wire for the meaning of each. A
// class that no stage keeps is refused here: it must not get a receipt.
func mayPublish(rest string) bool {
	class, more, _ := strings.Cut(rest, "/")
	if strings.HasPrefix(more, "/") || strings.HasSuffix(more, "/") || strings.Contains(more, "//") {
		return false
	}
	switch class {
	case "tele", "event":
		return more != ""
	case wire.TopicInv, wire.TopicNotice:
		return more == "" && rest == class
	case "state":
		return more == "reported"
	case "cmd":
		_, last, _ := strings.Cut(more, "/")
		return last == "ack" || last == "res"
	case "ota":
		_, last, _ := strings.Cut(more, "/")
		return last == "status"
	}
	return false
}
