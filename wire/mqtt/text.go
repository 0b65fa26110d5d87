// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"strings"
	"unicode/utf8"
)

func checkLen(s string) error {
	if len(s) > 0xFFFF {
		return malformed("a field of %d bytes does not fit its length of two bytes", len(s))
	}
	return nil
}

// checkText refuses what is not a UTF-8 string of the standard [MQTT-1.5.4-1, -2].
func checkText(s string) error {
	if err := checkLen(s); err != nil {
		return err
	}
	if !utf8.ValidString(s) {
		return malformed("text is not UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return malformed("text holds U+0000")
	}
	return nil
}

// CheckTopic refuses what is not a topic name: empty, too long, not UTF-8, or with a wildcard [MQTT-3.3.2-2].
func CheckTopic(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	if s == "" || strings.ContainsAny(s, "+#") {
		return &Error{TopicNameInvalid, "a topic name is not empty and has no wildcards"}
	}
	return nil
}

// CheckFilter refuses what is not a topic filter: a "#" that is not the whole last level, a "+" that is not a whole
// level [MQTT-4.7.1-1, -2], an incomplete $share [MQTT-4.8.2-1, -2].
func CheckFilter(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	rest := s
	if after, shared := strings.CutPrefix(s, "$share/"); shared {
		name, filter, ok := strings.Cut(after, "/")
		if !ok || name == "" || strings.ContainsAny(name, "+#") {
			return &Error{TopicFilterInvalid, "a shared subscription is $share/<name>/<filter>"}
		}
		rest = filter
	}
	if rest == "" {
		return &Error{TopicFilterInvalid, "a topic filter is not empty"}
	}
	for more := true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if strings.ContainsAny(level, "+#") && len(level) > 1 || level == "#" && more {
			return &Error{TopicFilterInvalid, "a wildcard is a whole level, and # the last"}
		}
	}
	return nil
}

// Match says whether the topic name matches the filter. Topics that begin with $ are left to the caller.
func Match(filter, topic string) bool {
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !tmore { // "a/#" also matches "a"
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		filter, topic = frest, trest
	}
}
