// Errors as users of the package see them: one class, matched by `code`.

export { CodedError, ERROR_TABLE, type ErrorCode, hasCode, isCoded } from '../core/errors.ts'
