// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// maxAnswers is how many ended commands a device remembers. A command that arrives again is answered from there.
const maxAnswers = 32

// answer is the end of a command, kept until the platform has it and as long as the command might be sent again.
type answer struct {
	ID     string             `json:"id"`
	Result wire.CommandResult `json:"result"`
	Sent   bool               `json:"sent"`
}

// command carries one command out, once: the result is on disk before the platform is told that the command arrived.
func (a *agent) command(ctx context.Context, work *sync.WaitGroup, id, name string, payload []byte) {
	if a.record().Wiping != "" {
		return // there is only one end
	}
	if i := a.answered(id); i >= 0 {
		a.acknowledge(ctx, id, "")
		a.sendResult(ctx, a.answers[i])
		return
	}
	var then func()
	var result wire.CommandResult
	var err error
	switch name {
	case "ping":
		result.Data, err = json.Marshal(a.inventory())
	case "reboot":
		result.Detail = "restarting"
		then = func() { a.finish(ErrReboot) }
	case "set-interval":
		err = a.commandInterval(payload)
	case wire.CommandNotice:
		result.Detail, err = "stored", a.keepNotice(payload)
	case "wipe":
		a.startWipe(ctx, work, id, payload)
		return
	default:
		a.acknowledge(ctx, id, fmt.Sprintf("this agent knows no command %q", name))
		return
	}
	if err != nil {
		result = wire.CommandResult{Detail: err.Error()}
	}
	result.OK = err == nil
	if err := a.remember(answer{ID: id, Result: result}); err != nil {
		a.acknowledge(ctx, id, "the result cannot be stored: "+err.Error())
		return
	}
	a.acknowledge(ctx, id, "")
	a.sendResult(ctx, answer{ID: id, Result: result})
	if then != nil {
		then()
	}
}

func (a *agent) commandInterval(payload []byte) error {
	var args struct {
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(payload, &args); err != nil {
		return fmt.Errorf("arguments: %w", err)
	}
	if args.Seconds < 0.01 || args.Seconds > 86400 {
		return fmt.Errorf("seconds must lie between 0.01 and 86400")
	}
	return a.setInterval(time.Duration(args.Seconds * float64(time.Second)))
}

// acknowledge takes a command (empty reason) or refuses it.
func (a *agent) acknowledge(ctx context.Context, id, reason string) {
	if err := a.publish(ctx, "cmd/"+id+"/ack", wire.CommandAck{OK: reason == "", Reason: reason}); err != nil {
		a.Log.Info("acknowledgement of a command not delivered", "command", id, "error", err)
	}
}

// sendResult delivers a result; what does not get through waits for the next session.
func (a *agent) sendResult(ctx context.Context, x answer) {
	if err := a.publish(ctx, "cmd/"+x.ID+"/res", x.Result); err != nil {
		a.Log.Info("result of a command not delivered yet", "command", x.ID, "error", err)
		return
	}
	if i := a.answered(x.ID); i >= 0 && !a.answers[i].Sent {
		a.answers[i].Sent = true
		if err := a.disk.writeJSON("commands.json", a.answers); err != nil {
			a.Log.Error("commands.json", "error", err) // it is sent once more; the platform knows its id
		}
	}
}

func (a *agent) resendResults(ctx context.Context) {
	for _, x := range a.answers {
		if !x.Sent {
			a.sendResult(ctx, x)
		}
	}
}

func (a *agent) answered(id string) int {
	for i := range a.answers {
		if a.answers[i].ID == id {
			return i
		}
	}
	return -1
}

func (a *agent) remember(x answer) error {
	list := append(a.answers[max(0, len(a.answers)-maxAnswers+1):len(a.answers):len(a.answers)], x)
	if err := a.disk.writeJSON("commands.json", list); err != nil {
		return err
	}
	a.answers = list
	return nil
}
