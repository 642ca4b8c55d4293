package federation

// actionReset is the action in the audit log of an operator who replaces a bundle whatever its sequence.
const actionReset = "reset bundle sequence"
