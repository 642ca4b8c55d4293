package webcert

import (
	"fmt"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// quietLogger writes certmagic's log lines into the member's log, bounded and at debug level. [ACME] itself logs what
// an operator has to know.
func quietLogger(to hclog.Logger) *zap.Logger {
	return zap.New(&quietCore{to: to.Named("acme")})
}

// quietCore implements [zapcore.Core].
type quietCore struct {
	to     hclog.Logger
	fields []zapcore.Field
}

const (
	maxQuietFields = 16
	maxQuietBytes  = 300
)

// Enabled implements [zapcore.LevelEnabler]. certmagic's own debug lines are left out.
func (c *quietCore) Enabled(level zapcore.Level) bool {
	return level >= zapcore.InfoLevel && c.to.IsDebug()
}

// With implements [zapcore.Core].
func (c *quietCore) With(fields []zapcore.Field) zapcore.Core {
	all := append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return &quietCore{to: c.to, fields: all[:min(len(all), maxQuietFields)]}
}

// Check implements [zapcore.Core].
func (c *quietCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write implements [zapcore.Core].
func (c *quietCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	all := append(c.fields[:len(c.fields):len(c.fields)], fields...)
	var args []any
	for _, field := range all[:min(len(all), maxQuietFields)] {
		encoder := zapcore.NewMapObjectEncoder()
		field.AddTo(encoder)
		for name, value := range encoder.Fields {
			args = append(args, clipTo(name, maxQuietBytes), clipTo(fmt.Sprint(value), maxQuietBytes))
		}
	}
	c.to.Debug(clipTo(entry.Message, maxQuietBytes), args...)
	return nil
}

// Sync implements [zapcore.Core].
func (c *quietCore) Sync() error { return nil }
