package audit

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Recorder writes events to an audit log. [Log] implements it. Record can be called from any goroutine. When it returns
// nil the event is in the log. When it returns an error the event is not in the log, and the caller must not do what it
// announces.
type Recorder interface {
	Record(Event) error
}

// ErrUnaudited is the reason why an action was not done, or its result withheld: its line could not be written.
var ErrUnaudited = errors.New("it cannot be audited")

// Do runs an action between two lines in the audit log. The first line has the result "begun". If it cannot be written,
// the action does not run, and Do returns an error that wraps [ErrUnaudited].
//
// The action can complete the second line: it gets a copy of the event, in which it sets Revision and may replace
// Detail and Result. If it leaves Result empty, the result is "done", or "failed" if the action returns an error. The
// Detail of a failure is the error, unless the action replaced it.
//
// If the second line cannot be written, the action has happened, and Do returns what the action returned: the recorder
// logs and counts the missing line, and the next action is refused. An action whose result has not left the member sets
// Event.Withhold. Do then returns an error that wraps [ErrUnaudited], and the caller discards the result.
func Do(to Recorder, event Event, action func(*Event) error) error {
	return DoAll(to, []Event{event}, func(lines []Event) error { return action(&lines[0]) })
}

// DoAll is Do for one action that has a pair of lines in the audit log for each of several events.
func DoAll(to Recorder, events []Event, action func(lines []Event) error) error {
	a, err := Begin(to, events...)
	if err != nil {
		return err
	}
	return a.End(action(a.Lines))
}

// Action is an action that has begun. It is for code that cannot put the action into one function; all other code
// calls [Do].
type Action struct {
	// Lines are the second lines, one for each event. The owner of the action may complete them as in [Do].
	Lines []Event

	to    Recorder
	begun []Event
}

// Begin writes the lines before an action. If one of them cannot be written, the action must not run: those already
// written get a second line with the result "failed", and the error wraps [ErrUnaudited].
func Begin(to Recorder, events ...Event) (*Action, error) {
	a := &Action{to: to}
	for _, e := range events {
		e.Result = ResultBegun
		if err := to.Record(e); err != nil {
			return nil, a.End(unaudited(e, "not done", err))
		}
		a.begun = append(a.begun, e)
		e.Result = ""
		a.Lines = append(a.Lines, e)
	}
	return a, nil
}

// End writes the lines after an action that returned err. It returns err, or, if err is nil and the line of an event
// with Withhold cannot be written, an error that wraps [ErrUnaudited].
func (a *Action) End(err error) error {
	var withheld error
	for i, e := range a.Lines {
		if err != nil && e.Detail == a.begun[i].Detail {
			e.Detail = err.Error()
		}
		switch {
		case e.Result != "":
		case err != nil:
			e.Result = ResultFailed
		default:
			e.Result = ResultDone
		}
		if lost := a.to.Record(e); lost != nil && e.Withhold {
			withheld = unaudited(e, "the result is withheld", lost)
		}
	}
	if err != nil {
		return err
	}
	return withheld
}

// unauditedError carries the gRPC status of an action that was refused because it could not be audited.
type unauditedError struct{ error }

func (e unauditedError) Unwrap() error { return e.error }

// GRPCStatus implements the interface of package status.
func (e unauditedError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

func unaudited(e Event, outcome string, err error) error {
	action := e.Action
	if e.Object != "" {
		action += " " + e.Object
	}
	return unauditedError{fmt.Errorf("%s: %s, because %w: %w; make room on the member's disk, or use another member",
		action, outcome, ErrUnaudited, err)}
}
