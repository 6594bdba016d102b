// The part of ONNX Runtime's Objective-C interface, as Swift sees it, that the iOS package uses.
import COrt
import Foundation

public struct ORTError: Error { public let message: String }

public enum ORTLoggingLevel: Int { case verbose, info, warning, error, fatal }

public enum ORTTensorElementDataType: Int32 {
    case undefined = 0, float = 1, uInt8 = 2, int8 = 3
}

public final class ORTEnv {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}

public final class ORTSessionOptions {
    var threads: Int32 = 0

    public init() throws {}

    public func setIntraOpNumThreads(_ threads: Int32) throws { self.threads = threads }
}

public final class ORTRunOptions {}

public final class ORTTensorTypeAndShapeInfo {
    public let elementType: ORTTensorElementDataType
    public let shape: [NSNumber]

    init(elementType: ORTTensorElementDataType, shape: [NSNumber]) {
        self.elementType = elementType
        self.shape = shape
    }
}

public final class ORTValue {
    let data: NSMutableData
    let info: ORTTensorTypeAndShapeInfo

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        data = tensorData
        info = ORTTensorTypeAndShapeInfo(elementType: elementType, shape: shape)
    }

    public func tensorTypeAndShapeInfo() throws -> ORTTensorTypeAndShapeInfo { info }

    public func tensorData() throws -> NSMutableData { data }
}

public final class ORTSession {
    private let session: UnsafeMutableRawPointer

    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {
        guard let opened = cort_open(modelPath, sessionOptions?.threads ?? 0) else { throw ORTError(message: String(cString: cort_error())) }
        session = opened
    }

    deinit { cort_close(session) }

    public func run(withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?) throws -> [String: ORTValue] {
        guard inputs.count == 1, let (name, value) = inputs.first else { throw ORTError(message: "one input is wanted") }
        var results: [String: ORTValue] = [:]
        for output in outputNames {
            var found = CortOutput()
            let shape = value.info.shape.map { $0.int64Value }
            let failed = cort_run(
                session, name, value.info.elementType.rawValue, value.data.mutableBytes, value.data.length, shape, shape.count, output, &found)
            guard failed == 0 else { throw ORTError(message: String(cString: cort_error())) }
            let sizes = withUnsafeBytes(of: found.shape) { Array($0.bindMemory(to: Int64.self).prefix(found.rank)) }
            results[output] = try ORTValue(
                tensorData: NSMutableData(bytes: found.data, length: found.bytes),
                elementType: ORTTensorElementDataType(rawValue: found.type) ?? .undefined, shape: sizes.map { NSNumber(value: $0) })
            cort_free(&found)
        }
        return results
    }
}
