import Foundation
import Models
import PlanishRuntime
import Testing

extension Planish {
    @Suite struct EngineTests {
        @Test func everyModelGivesWhatPythonComputed() async throws {
            try await check(Gesture.self)
            try await check(Direction.self)
            try await check(Picture.self)
            try await check(Spectrum.self)
            try await check(Vowels.self)
            try await check(WholeHand.self)
            try await check(Warp.self)
            try await check(HandsFour.self)
            #expect(HandsOne.parts[0].package == HandsFour.parts[0].package)
            #expect(try HandsOne.source().key != HandsFour.source().key)
        }

        private func check<Model: TypedModel>(_ model: Model.Type) async throws {
            let engine = try await Shared.engines.engine(model)
            for one in try Case.of(String(describing: model)) {
                #expect(try await engine.predict(one.given()) == one.expected())
            }
        }

        @Test func typedModelsSpeakSwift() async throws {
            let picture = try await Picture(engine: Shared.engines.engine(Picture.self))
            for one in try Case.of("Picture") {
                let given = try PixelImage(try #require(one.given().tensors["x"]))
                let output = try await picture.predict(.init(x: given))
                #expect(output.classLabel.rawValue == one.texts["classLabel"])
                #expect(output.classLabelProbs.top(1)[0].name == output.classLabel.rawValue)
                #expect(output.classLabelProbs["upright"] != nil)
            }
            #expect(Picture.Label.allCases.map(\.rawValue) == Picture.classNames)
            #expect(Picture.modelDescription.metadata["license"] == "Apache-2.0")
            let gesture = try await Gesture(engine: Shared.engines.engine(Gesture.self))
            let cases = try Case.of("Gesture")
            let inputs = try cases.map { Gesture.Input(input: try Shaped(try #require($0.given().tensors["input"]))) }
            let outputs = await gesture.predict(batch: inputs)
            for (output, one) in zip(outputs, cases) {
                #expect(try output.get().classIds.tensor == one.expected().tensors["class_ids"])
            }
            await #expect(throws: InferenceError.self) {
                _ = try await Picture(engine: Shared.engines.engine(Gesture.self))
            }
        }

        @Test func statesGoOnSideBySide() async throws {
            let speech = try await Speech(engine: Shared.engines.engine(Speech.self))
            let cases = try Case.of("Speech")
            let (a, b) = (try await speech.makeState(), try await speech.makeState())
            for one in cases {
                let given = try one.given()
                let input = Speech.Input(
                    input: try Shaped(try #require(given.tensors["input"])), sr: try given.scalar("sr"))
                let expected = try one.expected().tensors["output"]
                #expect(try await speech.predict(input, state: a).output.tensor == expected)
                #expect(try await speech.predict(input, state: b).output.tensor == expected)
            }
        }

        @Test func whatDoesNotFitIsRefusedBeforeItIsSent() async throws {
            let engine = try await Shared.engines.engine(Gesture.self)
            let right = try Case.of("Gesture")[0].given()
            await #expect(throws: InferenceError.missingInput("input")) { try await engine.predict(Features()) }
            var more = right
            more.tensors["other"] = more.tensors["input"]
            await #expect(throws: InferenceError.unknownInput("other", known: ["input"])) {
                try await engine.predict(more)
            }
            let wide = Features(["input": try Tensor([Float](repeating: 0, count: 43), shape: [1, 43])])
            await #expect(throws: InferenceError.self) { try await engine.predict(wide) }
            let double = Features(["input": try Tensor([Double](repeating: 0, count: 42), shape: [1, 42])])
            await #expect(throws: InferenceError.wrongType(input: "input", expected: "f32", given: "f64")) {
                try await engine.predict(double)
            }
            await #expect(throws: InferenceError.self) { try await engine.makeState() }
        }

        @Test func aPackageThatIsNoneIsSaid() async throws {
            let folder = try temporaryFolder()
            defer { try? FileManager.default.removeItem(at: folder) }
            let error = await #expect(throws: InferenceError.self) { try await ProcessEngine(package: folder) }
            guard case .engineUnavailable(let reason)? = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(reason.contains("error:"))
            #expect(reason.contains("exit code 2"))
            await #expect(throws: InferenceError.self) {
                try await ProcessEngine(package: folder, configuration: .init(command: ["/no/such/program"]))
            }
        }

        /// What a program says that is no server, and why it is given up.
        @Test(arguments: [
            ("hello, I am no server", "exit code 0"),
            (frame(#"{"ready": 2}"#), "unknown version"),
            (frame("no JSON"), "header that cannot be read"),
            (frame(#"{"tensors": [{"name": "x", "dtype": "f32", "shape": [9223372036854775807, 2]}]}"#), "tensor 'x'"),
            (frame(#"{"tensors": [{"name": "x", "dtype": "f32", "shape": [-1]}]}"#), "tensor 'x'"),
            (frame(#"{"tensors": [{"name": "x", "dtype": "f33", "shape": []}]}"#), "tensor 'x'"),
            (#"\002\000\000\000ab"#, "a frame of 2 bytes"),
            (#"\010\000\000\000\377\377\377\377abcd"#, "a header of 4294967295 bytes"),
        ]) func aProgramThatIsNoServerIsGivenUp(_ said: String, _ reason: String) async throws {
            let folder = try temporaryFolder()
            defer { try? FileManager.default.removeItem(at: folder) }
            let script = folder.appendingPathComponent("says")
            try "#!/bin/sh\nprintf '\(said)'\n".write(to: script, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: script.path)
            let error = await #expect(throws: InferenceError.self) {
                try await ProcessEngine(package: folder, configuration: .init(command: [script.path]))
            }
            #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
        }

        @Test func aProgramThatNeverBecomesReadyIsEnded() async throws {
            let folder = try temporaryFolder()
            defer { try? FileManager.default.removeItem(at: folder) }
            let script = folder.appendingPathComponent("sleeps")
            try "#!/bin/sh\nexec sleep 60\n".write(to: script, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: script.path)
            var configuration = ProcessEngine.Configuration(command: [script.path])
            configuration.startTimeout = 0.1
            await #expect(throws: InferenceError.engineUnavailable("signal 9")) {
                try await ProcessEngine(package: folder, configuration: configuration)
            }
        }

        @Test func aCrashFailsWhatIsUnderWayAndTheNextRequestStartsAnew() async throws {
            let engine = try await ProcessEngine(package: package(Gesture.self))
            let one = try Case.of("Gesture")[0]
            let first = try #require(await engine.processIdentifier)
            kill(first, SIGSTOP)
            let under = (0..<3).map { _ in Task { try await engine.predict(one.given()) } }
            try await eventually { await engine.pendingCount == 3 }
            kill(first, SIGKILL)
            for task in under {
                let error = await #expect(throws: InferenceError.self) { try await task.value }
                #expect(error == .engineLost("signal 9"))
            }
            #expect(try await engine.predict(one.given()) == one.expected())
            #expect(await engine.starts == 2)
            let second = try #require(await engine.processIdentifier)
            #expect(!FileManager.default.fileExists(atPath: "/proc/\(first)"))
            await engine.shutdown()
            try await eventually { !FileManager.default.fileExists(atPath: "/proc/\(second)") }
            await #expect(throws: InferenceError.closed) { try await engine.predict(one.given()) }
        }

        @Test func aProgramThatKeepsCrashingIsGivenUp() async throws {
            var configuration = ProcessEngine.Configuration()
            configuration.restarts = 1
            let engine = try await ProcessEngine(package: package(Gesture.self), configuration: configuration)
            let given = try Case.of("Gesture")[0].given()
            var reasons: [InferenceError] = []
            for _ in 0..<4 {
                if let process = await engine.processIdentifier { kill(process, SIGKILL) }
                do { _ = try await engine.predict(given) } catch let error as InferenceError { reasons.append(error) }
                try await Task.sleep(for: .milliseconds(100))
            }
            #expect(reasons.last == .engineUnavailable("it ended 2 times within a minute"))
            await engine.shutdown()
        }

        @Test func cancellationAnswersAtOnce() async throws {
            let engine = try await ProcessEngine(package: package(Gesture.self))
            let one = try Case.of("Gesture")[0]
            let process = try #require(await engine.processIdentifier)
            kill(process, SIGSTOP)
            let task = Task { try await engine.predict(one.given()) }
            try await eventually { await engine.pendingCount == 1 }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            kill(process, SIGCONT)
            #expect(try await engine.predict(one.given()) == one.expected())
            await engine.shutdown()
        }

        /// What `compile --hybrid` wrote, as it lies there: Core ML, kernels, Core ML, each in a process of its own.
        @Test func aFolderOfPartsRunsAsItWasWritten() async throws {
            let variable = try #require(ProcessInfo.processInfo.environment["PLANISH_PARTS"])
            let folder = URL(fileURLWithPath: variable)
            let whole = try HybridPackage(folder: folder)
            #expect(whole.parts.map(\.kind) == ["coreml", "metal", "coreml"])
            let engine = try await HybridEngine.inProcesses(folder: folder)
            #expect(engine.description.inputs == Warp.modelDescription.inputs)
            #expect(engine.description.outputs == Warp.modelDescription.outputs)
            for one in try Case.of("Warp") { try await hold(one) { try await engine.predict($0) } }
            let typed = try Warp(engine: engine)
            let image = try Shaped<Float>(try #require(Case.of("Warp")[0].given().tensors["in0"]))
            _ = try await typed.predict(.init(in0: image))
            await engine.shutdown()
            await #expect(throws: InferenceError.closed) { _ = try await typed.predict(.init(in0: image)) }
            // In one process, as `planish serve` takes the whole folder too.
            let one = try await ProcessEngine(package: folder)
            for example in try Case.of("Warp") { try await hold(example) { try await one.predict($0) } }
            await one.shutdown()
            let empty = try temporaryFolder()
            defer { try? FileManager.default.removeItem(at: empty) }
            await #expect(throws: InferenceError.self) { try await HybridEngine.inProcesses(folder: empty) }
        }

        @Test func partsThatDoNotFitAreRefused() async throws {
            let (front, back) = (WholeHand.parts[0].description, WholeHand.parts[1].description)
            #expect(try HybridEngine.join("x", [front, back], nil).inputs == WholeHand.modelDescription.inputs)
            #expect(throws: InferenceError.self) { try HybridEngine.join("x", [front, back], ["nothing"]) }
            let speech = Speech.modelDescription
            #expect(throws: InferenceError.self) { try HybridEngine.join("x", [front, speech], nil) }
        }
    }
}

/// A frame with a header alone, in the escapes of `printf`.
private func frame(_ header: String) -> String {
    func number(_ value: Int) -> String {
        (0..<4).map { byte in
            let digits = String(value >> (8 * byte) & 0xff, radix: 8)
            return "\\" + String(repeating: "0", count: 3 - digits.count) + digits
        }.joined()
    }
    return number(header.utf8.count + 4) + number(header.utf8.count) + header
}
